"""The Redis servers: clients, what servers say about themselves, rights, refusals, and the store's own record."""
