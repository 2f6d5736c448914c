"""Any JSON, documents with our field names, and any headers."""

from hypothesis import strategies as st

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    *("version", "tenant_id", "request_id", "task", "message", "input", "policy_id", "constraints", "metadata"),
    *("context", "trace_id", "run_id", "flow_id", "step_id", "idempotency_key", "push_assignment"),
    *("assignment_subject", "options", "message_id", "type", "payload", "payload_ref", "kind", "data"),
    *("assignment_id", "status", "decision_id", "job", "job_type", "latency_ms", "cost", "tokens", "output"),
    *("error_code", "error_message", "worker_id", "load", "reason", "max_latency_ms", "max_cost", "estimate"),
    *("deadline_ms", "retry", "result_subject", "ip_address", "user_id", "retry_attempts_x", "api_key"),
)
documents = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6), max_leaves=12
)
HEADERS = (
    *("tenant_id", "trace_id", "version", "idempotency-key", "x-client-ip", "traceparent"),
    *("push_assignment", "X", "authorization"),
)
headers = st.none() | st.dictionaries(
    st.sampled_from(HEADERS), st.text(st.characters(codec=None), max_size=12) | st.sampled_from(["1", "acme", "true"])
)
