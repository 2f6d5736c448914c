"""Edges of a pod other than NATS and Redis: the HTTP server and its pages, audit files, the mounted state file."""
