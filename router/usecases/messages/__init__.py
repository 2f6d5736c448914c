"""Failure handling that every stream consumer shares: retries, dead letters, isolation of tenants."""
