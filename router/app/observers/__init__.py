"""Observers: turn what the parts of a pod report into metrics, logs, readiness and alerts."""
