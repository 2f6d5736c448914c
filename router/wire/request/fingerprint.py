"""The fingerprint of a request: two requests with the same fingerprint ask the same question."""

from hashlib import blake2b

import orjson

from router.domain.decide.request import NO_STEP, DecideRequest
from router.domain.json import JsonValue

FINGERPRINT_BYTES = 8

# Context fields that may differ when a caller sends the same request again.
_RETRY_FIELDS = frozenset(
    {
        "ip_address",
        "request_id",
        "message_id",
        "run_id",
        "flow_id",
        "step_id",
        "trace_id",
        "traceparent",
        "timestamp",
        "timestamp_ms",
    }
)

_RETRIES = "retry_attempts"


def fingerprint(request: DecideRequest) -> bytes:
    """Hash everything that may change the answer into 8 bytes. Shape, key order and encoding do not matter.

    The hash leaves out ids, trace, timestamps, explain, headers, the client's address and metadata. It leaves out
    `result_subject` too: a caller that retries has a new inbox.

    :raises orjson.JSONEncodeError: payload or context is nested too deep to be written (250 levels always pass).
    """
    context = request.context
    if request.step is not NO_STEP or None in context.values() or not _RETRY_FIELDS.isdisjoint(context):
        context = {k: _step_value(k, v) for k, v in context.items() if v is not None and k not in _RETRY_FIELDS}
    constraints, options = request.constraints, request.options
    meaning = (
        request.tenant_id,
        request.policy_id,
        request.task_type,
        # The two lists add the deepest nesting of any later message. A payload that passes here can be written there.
        [[request.payload, context]],
        request.payload_ref,
        constraints.max_latency_ms,
        constraints.max_cost_microusd,
        request.push_assignment,
        request.assignment_subject,
        options.estimate_tokens,
        options.estimate_cost_microusd,
        options.deadline_ms,
        options.max_attempts,
        options.backoff_ms,
        options.priority,
        options.meter,
    )
    return blake2b(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS), digest_size=FINGERPRINT_BYTES).digest()


def _step_value(key: str, value: JsonValue) -> JsonValue:
    """Make the step fields equal in JSON and protobuf: a protobuf context holds only strings."""
    if key == "status":
        return str(value)
    return int(value) if key.startswith(_RETRIES) and isinstance(value, str | float) else value
