"""Alerts of the fleet: raising and resolving them, their episodes and rules, and reading them back."""
