"""Dispatched tasks: their records, their moves, and the rows of a settle call."""
