"""A tenant's policies: cache, publication, quotas, and the first fill from files."""
