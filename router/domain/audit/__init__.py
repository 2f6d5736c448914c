"""Values and rules of the audit log."""
