"""Pipelined publishes to JetStream."""
