"""The use cases of the router. They know adapters only as ports."""
