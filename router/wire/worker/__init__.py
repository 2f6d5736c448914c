"""Messages of workers, and the stored job: results, acks, heartbeats."""
