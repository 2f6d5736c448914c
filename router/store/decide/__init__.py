"""The decide call: rows, batches, and the lanes that carry them to Redis, one call in flight each."""
