"""The permanent connection to NATS: its client, options, permissions, errors and events."""
