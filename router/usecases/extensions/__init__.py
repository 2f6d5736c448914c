"""Requests whose policy has extensions: the flow, the claim, the calls, and the extensions' health."""
