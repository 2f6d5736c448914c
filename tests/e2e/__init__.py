"""Whole deployments, on a real Docker engine and a real Kubernetes: `make e2e-compose`, `make e2e-k8s`."""
