"""A tenant's audit log: reading it, its retention, and what it says about requests and unknown tenants."""
