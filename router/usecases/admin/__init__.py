"""Admin acts and look-ups over NATS: access, operators' overrides, policies, purge, status."""
