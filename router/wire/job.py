"""The work item of a dispatched task, as it is kept until the task ends (`job:<task_id>`).

    format byte 1 · head, JSON: what planning the next attempt needs · newline · body, JSON: what the assignments of all
    attempts have in common

An assignment is the body with a few fields appended, so a large payload is encoded once. It is read again only for an
attempt whose provider has another deadline than the first candidate.
"""

from typing import Any

import msgspec
import orjson
from msgspec import Struct

from router.domain.attempts import DEFAULT_BACKOFF_MS
from router.domain.decision import Intake, Refused
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import DEFAULT_ATTEMPTS
from router.domain.request import (
    DEFAULT_OPTIONS,
    NO_CONSTRAINTS,
    NO_CORRELATION,
    NO_STEP,
    Constraints,
    Correlation,
    DecideRequest,
    Options,
    Step,
)
from router.wire.problems import Problems

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
DEFAULT_PRIORITY = "normal"

_FORMAT = b"\x01"
_NEWLINE = b"\n"


class _Head(Struct, frozen=True, omit_defaults=True):
    """A request without payload and fingerprint. Fields are only ever added, with a default: two versions read it."""

    tenant_id: str
    request_id: str
    policy_id: str
    task_type: str
    payload_ref: str | None = None
    context: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    idempotency_key: str | None = None
    message_id: str | None = None
    user_id: str | None = None
    client_ip: str | None = None
    step: Step = NO_STEP
    constraints: Constraints = NO_CONSTRAINTS
    options: Options = DEFAULT_OPTIONS
    correlation: Correlation = NO_CORRELATION
    assignment_subject: str | None = None
    deadline_ms: int = 0
    timed: bool = False


class Origin(Struct, frozen=True):
    """Whose job it is and what it correlates with: all that events and headers need of it.

    `deadline_ms` is what the body says, and `timed` whether dispatch has added it to the payload.
    """

    tenant_id: str
    request_id: str
    task_type: str
    idempotency_key: str | None = None
    correlation: Correlation = NO_CORRELATION
    deadline_ms: int = 0
    timed: bool = False


_read_head = msgspec.json.Decoder(_Head).decode
_read_origin = msgspec.json.Decoder(Origin).decode


def encode_job(request: DecideRequest, deadline_ms: int, *, max_attempts: int = DEFAULT_ATTEMPTS) -> bytes | Refused:
    """The work item of a request, or the refusal of one that is too large to be kept (payload over 64 KiB).

    `deadline_ms` is the first candidate's; `max_attempts` is told when the request has no such wish.
    """
    dispatched, timed = _dispatched(request.payload, deadline_ms)
    payload = orjson.dumps(dispatched)
    if len(payload) > MAX_PAYLOAD_BYTES:
        found = Problems()
        check_payload(request.payload, found)
        if found:
            return found.rejected().refused
    head = msgspec.json.encode(_head_of(request, deadline_ms, timed))
    if len(head) > MAX_HEAD_BYTES:
        found = Problems()
        hint = "send only what routing and the worker need"
        found.add("context", _too_large("context and metadata", len(head)), hint, Intake.PAYLOAD_TOO_LARGE)
        return found.rejected().refused
    options = request.options
    job: JsonObject = {"type": request.task_type}
    body: dict[str, object] = {
        "version": "1",
        "request_id": request.request_id,
        "tenant_id": request.tenant_id,
        "job": job | {"payload": orjson.Fragment(payload)},
        "options": {
            "priority": options.priority or DEFAULT_PRIORITY,
            "deadline_ms": deadline_ms,
            "retry": {
                "max_attempts": max_attempts if options.max_attempts is None else options.max_attempts,
                "backoff_ms": DEFAULT_BACKOFF_MS if options.backoff_ms is None else options.backoff_ms,
            },
        },
        "correlation": {} if request.correlation.trace_id is None else {"trace_id": request.correlation.trace_id},
    }
    if request.payload_ref is not None:
        body["job"] = {
            "type": request.task_type,
            "payload": orjson.Fragment(payload),
            "payload_ref": request.payload_ref,
        }
    if request.metadata:
        body["metadata"] = request.metadata
    body |= correlation_fields(request.correlation, request.idempotency_key)
    return _FORMAT + head + _NEWLINE + orjson.dumps(body)


def _dispatched(payload: JsonValue, deadline_ms: int) -> tuple[JsonObject, bool]:
    """What goes into job.payload: an object, and whether the deadline that existing workers look for was added."""
    if payload is None:
        payload = {}
    if type(payload) is not dict:
        return {"value": payload}, False
    return (payload, False) if "timeout_ms" in payload else ({**payload, "timeout_ms": deadline_ms}, True)


def check_payload(payload: JsonValue, found: Problems) -> None:
    """Note a payload that is too large to be dispatched: as it was sent, without what dispatch puts around it."""
    size = len(orjson.dumps(payload))
    if size > MAX_PAYLOAD_BYTES:
        hint = "store it elsewhere and send its payload_ref"
        found.add("task.payload", _too_large("payload", size), hint, Intake.PAYLOAD_TOO_LARGE)


def _too_large(what: str, size: int) -> str:
    return f"{what} of a pushed task: {size} bytes are more than {MAX_PAYLOAD_BYTES}"


def _head_of(r: DecideRequest, deadline_ms: int, timed: bool) -> _Head:
    return _Head(
        tenant_id=r.tenant_id,
        request_id=r.request_id,
        policy_id=r.policy_id,
        task_type=r.task_type,
        payload_ref=r.payload_ref,
        context=r.context,
        metadata=r.metadata,
        idempotency_key=r.idempotency_key,
        message_id=r.message_id,
        user_id=r.user_id,
        client_ip=r.client_ip,
        step=r.step,
        constraints=r.constraints,
        options=r.options,
        correlation=r.correlation,
        assignment_subject=r.assignment_subject,
        deadline_ms=deadline_ms,
        timed=timed,
    )


def request_of(job: bytes) -> DecideRequest:
    """The request that a stored job came from, without its payload and fingerprint: enough to plan the next attempt.

    :raises ValueError: not a stored job, or one of a format that this version cannot read.
    """
    head, _ = split(job)
    h = _read_head(head)
    return DecideRequest(
        tenant_id=h.tenant_id,
        request_id=h.request_id,
        policy_id=h.policy_id,
        task_type=h.task_type,
        fingerprint=b"",
        payload_ref=h.payload_ref,
        context=h.context,
        metadata=h.metadata,
        idempotency_key=h.idempotency_key,
        message_id=h.message_id,
        user_id=h.user_id,
        client_ip=h.client_ip,
        step=h.step,
        constraints=h.constraints,
        options=h.options,
        correlation=h.correlation,
        push_assignment=True,
        assignment_subject=h.assignment_subject,
    )


def origin_of(job: bytes) -> Origin:
    """Whose job it is.

    :raises ValueError: not a stored job, or one of a format that this version cannot read.
    """
    return _read_origin(split(job)[0])


def body_of(job: bytes, origin: Origin, deadline_ms: int | None) -> bytes:
    """The part that the assignments of all attempts share, but for the deadline of one whose provider has another.

    :raises ValueError: not a stored job, or one of a format that this version cannot read.
    """
    _, body = split(job)
    if deadline_ms in (None, origin.deadline_ms) or not origin.deadline_ms:
        return body
    doc = orjson.loads(body)
    doc["options"]["deadline_ms"] = deadline_ms
    if origin.timed:
        doc["job"]["payload"]["timeout_ms"] = deadline_ms
    return orjson.dumps(doc)


def split(job: bytes) -> tuple[bytes, bytes]:
    """Head and body.

    :raises ValueError: not a stored job, or one of a format that this version cannot read.
    """
    head, newline, body = job[1:].partition(_NEWLINE)
    if job[:1] != _FORMAT or not newline:
        raise ValueError(f"a stored job of format {job[:1].hex() or 'none'}, this version reads 01")
    return head, body


def correlation_fields(correlation: Correlation, idempotency_key: str | None = None) -> JsonObject:
    """The correlation fields that there are, as every JSON event carries them."""
    c = correlation
    fields = (
        ("trace_id", c.trace_id),
        ("run_id", c.run_id),
        ("flow_id", c.flow_id),
        ("step_id", c.step_id),
        ("idempotency_key", idempotency_key),
    )
    return {name: value for name, value in fields if value is not None}
