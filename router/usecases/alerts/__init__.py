"""Alerts of the fleet: rules, episodes, publishing, and the log that people read."""
