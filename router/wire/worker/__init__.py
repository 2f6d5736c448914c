"""What workers send and are sent: results, acks, heartbeats, the stored job."""
