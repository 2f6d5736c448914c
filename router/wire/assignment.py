"""What goes out about a task: the assignment of each attempt, its event, the usage, the final result."""

import msgspec
import orjson
from msgspec import Struct

from router.domain.decision import PRIORITY, Reason
from router.domain.json import JsonObject
from router.domain.request import NO_CORRELATION, Correlation
from router.domain.result import ExecResult, Status
from router.wire.fields import MICROUSD
from router.wire.job import Origin, body_of, correlation_fields, origin_of
from router.wire.reply import header_value

CHANNEL = "nats"


class Attempt(Struct, frozen=True):
    """One attempt of a task, decided. Ids are UUID texts, the cost is micro-USD, times are Unix ms.

    `deadline_ms`: how long its provider may take; None: as its job says.
    """

    assignment_id: str
    task_id: str
    attempt: int
    provider_id: str
    reason: Reason
    policy_id: str
    policy_revision: int
    expected_latency_ms: int
    expected_cost_microusd: int
    created_at_ms: int
    deadline_at_ms: int
    endpoint: str | None = None
    deadline_ms: int | None = None


class Usage(Struct, frozen=True):
    """What one settled success used. `usage_id` is the task_id, or the decision_id of an undispatched decision."""

    usage_id: str
    tenant_id: str
    provider_id: str
    event_type: str
    latency_ms: int
    cost_microusd: int
    status: Status
    timestamp_ms: int
    request_id: str
    assignment_id: str | None = None
    tokens: int | None = None
    idempotency_key: str | None = None
    correlation: Correlation = NO_CORRELATION


def assignment(job: bytes, attempt: Attempt) -> tuple[bytes, dict[str, str]]:
    """Payload and headers of one attempt's assignment.

    :raises ValueError: `job` is not a stored job of a format that this version reads.
    """
    origin = origin_of(job)
    body = body_of(job, origin, attempt.deadline_ms)
    executor: JsonObject = {"provider_id": attempt.provider_id, "channel": CHANNEL}
    if attempt.endpoint is not None:
        executor["endpoint"] = attempt.endpoint
    own = orjson.dumps(
        {
            "assignment_id": attempt.assignment_id,
            "task_id": attempt.task_id,
            "attempt": attempt.attempt,
            "executor": executor,
            "decision": {
                "provider_id": attempt.provider_id,
                "priority": PRIORITY[attempt.reason],
                "expected_latency_ms": attempt.expected_latency_ms,
                "expected_cost": attempt.expected_cost_microusd / MICROUSD,
                "reason": attempt.reason.label,
            },
            "created_at_ms": attempt.created_at_ms,
            "deadline_at_ms": attempt.deadline_at_ms,
        }
    )
    # Two JSON objects that share no field become one by dropping the braces between them.
    return body[:-1] + b"," + own[1:], _headers(origin)


def _headers(origin: Origin) -> dict[str, str]:
    headers = {"tenant_id": origin.tenant_id, "version": "1"}
    if origin.correlation.trace_id is not None:
        headers["trace_id"] = header_value(origin.correlation.trace_id)
    if origin.correlation.traceparent is not None:
        headers["traceparent"] = origin.correlation.traceparent
    return headers


def assigned_event(job: bytes, attempt: Attempt, *, subject: str, timestamp_ms: int) -> bytes:
    """The event that an assignment is on its way to `subject`; it holds no payload.

    :raises ValueError: `job` is not a stored job of a format that this version reads.
    """
    origin = origin_of(job)
    event: JsonObject = {
        "version": "1",
        "assignment_id": attempt.assignment_id,
        "task_id": attempt.task_id,
        "attempt": attempt.attempt,
        "request_id": origin.request_id,
        "tenant_id": origin.tenant_id,
        "provider_id": attempt.provider_id,
        "policy_id": attempt.policy_id,
        "policy_revision": attempt.policy_revision,
        "reason": attempt.reason.label,
        "subject": subject,
        "deadline_at_ms": attempt.deadline_at_ms,
        "timestamp": timestamp_ms,
        **correlation_fields(origin.correlation, origin.idempotency_key),
    }
    return orjson.dumps(event)


def usage_event(usage: Usage) -> bytes:
    """One usage event; consumers know it by its usage_id."""
    event: JsonObject = {
        "version": "1",
        "usage_id": usage.usage_id,
        "tenant_id": usage.tenant_id,
        "provider_id": usage.provider_id,
        "event_type": usage.event_type,
        "latency_ms": usage.latency_ms,
        "cost": usage.cost_microusd / MICROUSD,
        "status": usage.status.value,
        "timestamp": usage.timestamp_ms,
        "request_id": usage.request_id,
        **correlation_fields(usage.correlation, usage.idempotency_key),
    }
    if usage.assignment_id is not None:
        event["assignment_id"] = usage.assignment_id
    if usage.tokens is not None:
        event["tokens"] = usage.tokens
    return orjson.dumps(event)


class UsageFacts(Struct, frozen=True):
    """What identifies a usage event; `timestamp` is when it was settled, Unix ms."""

    usage_id: str = ""
    tenant_id: str = ""
    timestamp: int = 0
    request_id: str | None = None
    assignment_id: str | None = None


_NO_FACTS = UsageFacts()
_usage_facts = msgspec.json.Decoder(UsageFacts)


def usage_facts(event: bytes) -> UsageFacts:
    """The identity of a usage event of ours; empty when the bytes are none. Never raises."""
    try:
        return _usage_facts.decode(event)
    except msgspec.DecodeError:
        return _NO_FACTS


def final_result(
    result: ExecResult,
    *,
    task_id: str,
    assignment_id: str,
    attempt: int,
    provider_id: str,
    origin: Origin,
    max_bytes: int,
    max_kept: int,
) -> tuple[bytes, bytes | None]:
    """What `options.result_subject` gets when the task has ended. A deadline without a result is a result of ours.

    An output that makes it longer than `max_bytes` is left out, marked with `"truncated": true`; one that makes it
    longer than `max_kept` is left out of a second form, which is None otherwise.
    """
    out: JsonObject = {
        "ok": result.status is Status.SUCCESS,
        "task_id": task_id,
        "assignment_id": assignment_id,
        "attempt": attempt,
        "status": result.status.value,
        "provider_id": provider_id,
        "latency_ms": result.latency_ms,
        "cost": None if result.cost_microusd is None else result.cost_microusd / MICROUSD,
        "request_id": origin.request_id,
        "tenant_id": origin.tenant_id,
        **correlation_fields(origin.correlation, origin.idempotency_key),
    }
    if result.output is not None:
        out["output"] = result.output
    if result.error_code is not None:
        out["error_code"] = result.error_code
    if result.error_message is not None:
        out["error_message"] = result.error_message
    data = orjson.dumps(out)
    if len(data) <= min(max_bytes, max_kept) or "output" not in out:
        return data, None
    del out["output"]
    short = orjson.dumps(out | {"truncated": True})
    return (short, None) if len(data) > max_bytes else (data, short)
