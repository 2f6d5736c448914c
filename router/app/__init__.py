"""Composition root: settings → a running pod. The only place that knows every room."""

from router.app.pod import serve

__all__ = ["serve"]
