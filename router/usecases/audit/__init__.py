"""The audit log: records written at once, later or as counts; retention, export and queries."""
