"""Composition root: settings → a running pod. The only package that imports all others; start at `pod.serve`."""
