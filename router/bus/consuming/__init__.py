"""Consuming: the pull loop of a durable consumer, its checks, and a delivered message."""
