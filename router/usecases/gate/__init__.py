"""The CP gate: which features the mounted state file allows."""
