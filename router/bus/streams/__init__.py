"""The fleet's streams and durable consumers: what they should be, what they are, and what they hold."""
