"""The messages about a task: the assignment of each attempt, its event, the usage event, the final result."""

import msgspec
import orjson
from msgspec import Struct

from router.domain.decide.decision import PRIORITY, Reason
from router.domain.decide.request import NO_CORRELATION, Correlation
from router.domain.json import UNREADABLE, JsonObject
from router.domain.tasks.result import ExecResult, ResultStatus
from router.wire.fields import MICROUSD
from router.wire.reply import header_value
from router.wire.worker.job import Origin, assignment_body, correlation_fields, origin_of

CHANNEL = "nats"


class Attempt(Struct, frozen=True):
    """One attempt of a task, after its decision. Ids are UUID texts, the cost is micro-USD, times are Unix ms.

    `deadline_ms` is how long the provider may take; None: the deadline in the job.
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
    """The usage of one settled success. `usage_id` is the task_id, or the decision_id of an undispatched decision."""

    usage_id: str
    tenant_id: str
    provider_id: str
    event_type: str
    latency_ms: int
    cost_microusd: int
    status: ResultStatus
    timestamp_ms: int
    request_id: str
    assignment_id: str | None = None
    tokens: int | None = None
    idempotency_key: str | None = None
    correlation: Correlation = NO_CORRELATION
    tokens_input: int | None = None
    tokens_output: int | None = None


def assignment(job: bytes, attempt: Attempt) -> tuple[bytes, dict[str, str]]:
    """Encode the assignment of an attempt as payload and headers.

    :raises ValueError: `job` is not a stored job in a format that this version reads.
    """
    origin = origin_of(job)
    priority = PRIORITY[attempt.reason]
    body = assignment_body(job, origin, attempt.deadline_ms, priority=priority)
    executor: JsonObject = {"provider_id": attempt.provider_id, "channel": CHANNEL}
    if attempt.endpoint is not None:
        executor["endpoint"] = attempt.endpoint
    attempt_fields = orjson.dumps(
        {
            "assignment_id": attempt.assignment_id,
            "task_id": attempt.task_id,
            "attempt": attempt.attempt,
            "executor": executor,
            "decision": {
                "provider_id": attempt.provider_id,
                "priority": priority,
                "expected_latency_ms": attempt.expected_latency_ms,
                "expected_cost": attempt.expected_cost_microusd / MICROUSD,
                "reason": attempt.reason.label,
            },
            "created_at_ms": attempt.created_at_ms,
            "deadline_at_ms": attempt.deadline_at_ms,
        }
    )
    # The two JSON objects share no field. Dropping the braces between them makes one object.
    return body[:-1] + b"," + attempt_fields[1:], _headers(origin)


def _headers(origin: Origin) -> dict[str, str]:
    headers = {"tenant_id": origin.tenant_id, "version": "1"}
    if origin.correlation.trace_id is not None:
        headers["trace_id"] = header_value(origin.correlation.trace_id)
    if origin.correlation.traceparent is not None:
        headers["traceparent"] = origin.correlation.traceparent
    return headers


def encode_assigned_event(job: bytes, attempt: Attempt, *, subject: str, timestamp_ms: int) -> bytes:
    """Encode the event of an assignment published to `subject`; it holds no payload.

    :raises ValueError: `job` is not a stored job in a format that this version reads.
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


def encode_usage_event(usage: Usage) -> bytes:
    """Encode a usage event; consumers deduplicate by its usage_id."""
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
    for field, count in (
        ("tokens", usage.tokens),
        ("tokens_input", usage.tokens_input),
        ("tokens_output", usage.tokens_output),
    ):
        if count is not None:
            event[field] = count
    return orjson.dumps(event)


class UsageIdentity(Struct, frozen=True):
    """The identity of a usage event; `timestamp` is the time of the settlement, in Unix ms."""

    usage_id: str = ""
    tenant_id: str = ""
    timestamp: int = 0
    request_id: str | None = None
    assignment_id: str | None = None


_NO_USAGE_FACTS = UsageIdentity()
_usage_facts_decoder = msgspec.json.Decoder(UsageIdentity)


def usage_identity(event: bytes) -> UsageIdentity:
    """Read the identity of a usage event; empty when the bytes are not a usage event. Never raises."""
    try:
        return _usage_facts_decoder.decode(event)
    except UNREADABLE:
        return _NO_USAGE_FACTS


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
    """Encode the final result of a task for `options.result_subject`: the message, and a short form to store.

    When a deadline passes without a result, the router makes the result itself. An output that makes the message longer
    than `max_bytes` is left out, marked with `"output_dropped": true`. The short form is the same message without an
    output that makes it longer than `max_kept`; it is None when the message itself can be stored.
    """
    fields: JsonObject = {
        "ok": result.status is ResultStatus.SUCCESS,
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
        fields["output"] = result.output
    if result.error_code is not None:
        fields["error_code"] = result.error_code
    if result.error_message is not None:
        fields["error_message"] = result.error_message
    if result.warnings:
        fields["warnings"] = [w.text for w in result.warnings]
    data = orjson.dumps(fields)
    if len(data) <= min(max_bytes, max_kept) or "output" not in fields:
        return data, None
    short = _without_output(fields)
    return (short, None) if len(data) > max_bytes else (data, short)


class _FinalEnd(Struct):
    status: str = ""
    error_code: str | None = None


_final_end_decoder = msgspec.json.Decoder(_FinalEnd)


def final_end(body: bytes) -> tuple[str, str | None]:
    """The status and the error code in a final result of this module."""
    end = _final_end_decoder.decode(body)
    return end.status, end.error_code


def final_result_to_keep(body: bytes, max_output_bytes: int) -> bytes:
    """The final result that is kept for repeats: without an output of more than `max_output_bytes` in JSON."""
    if len(body) <= max_output_bytes:
        return body
    fields: JsonObject = orjson.loads(body)
    if "output" not in fields or len(orjson.dumps(fields["output"])) <= max_output_bytes:
        return body
    return _without_output(fields)


def without_output(body: bytes) -> bytes:
    """The final result without its output, which is marked as dropped."""
    return _without_output(orjson.loads(body))


def _without_output(fields: JsonObject) -> bytes:
    # `truncated` is the mark of version 0.1.0.
    marks: JsonObject = {"output_dropped": True, "truncated": True}
    return orjson.dumps({name: value for name, value in fields.items() if name != "output"} | marks)
