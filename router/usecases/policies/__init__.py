"""A tenant's policies: cache, publishing, quotas, and seeding the store from files."""
