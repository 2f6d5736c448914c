"""The permanent connection to NATS: its client, options, rights, errors and events."""
