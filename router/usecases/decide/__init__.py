"""Answering a request: intake, the plan, the decide call, the reply; dry runs."""
