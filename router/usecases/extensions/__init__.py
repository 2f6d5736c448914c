"""Requests whose policy has extensions: the claim, the pipeline, and the health of extensions."""
