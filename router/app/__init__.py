"""Composition root: settings → a running pod. The only place that knows every room; `pod.serve` is the door."""
