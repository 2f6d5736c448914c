"""A tenant's audit log: reading, retention, facts about requests, and the log of unknown tenants."""
