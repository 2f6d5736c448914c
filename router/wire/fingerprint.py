"""What makes two requests the same request."""

from hashlib import blake2b

import orjson

from router.domain.json import JsonValue
from router.domain.request import NO_STEP, DecideRequest

FINGERPRINT_BYTES = 8

# Names that a caller's context may repeat, and that differ between two sendings of one request.
_PER_SENDING = frozenset(
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
    """8 bytes over all that may change the answer: equal for equal meaning, whatever the shape, key order or encoding.

    Not in it: ids, trace, timestamps, explain, headers, the client's address, metadata, and `result_subject`: a caller
    that sends a request again has a new inbox by then.

    :raises orjson.JSONEncodeError: payload or context are nested too deep to be written (250 levels always pass).
    """
    context = request.context
    if request.step is not NO_STEP or None in context.values() or not _PER_SENDING.isdisjoint(context):
        context = {k: _meant(k, v) for k, v in context.items() if v is not None and k not in _PER_SENDING}
    constraints, options = request.constraints, request.options
    meaning = (
        request.tenant_id,
        request.policy_id,
        request.task_type,
        # Two lists: as deep as anything that is made of the payload later, so what passes here can be written there.
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


def _meant(key: str, value: JsonValue) -> JsonValue:
    """A protobuf context holds strings only: what says where the caller is counts, not whether it is a number."""
    if key == "status":
        return str(value)
    return int(value) if key.startswith(_RETRIES) and isinstance(value, str | float) else value
