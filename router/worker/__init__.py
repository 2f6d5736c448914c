"""The example worker: a client of the fleet, not a part of it."""
