"""The audit log: its records, what is written later or only counted, retention, export and queries."""
