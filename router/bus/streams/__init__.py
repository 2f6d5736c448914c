"""The fleet's streams and durable consumers: specifications, checks, and contents."""
