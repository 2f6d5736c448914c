"""The stored job of a dispatched task (`job:<task_id>`); it exists until the task ends.

    format byte 1 · head (JSON) · newline · body (JSON)

The head holds what planning the next attempt needs. The body holds the fields that the assignments of all attempts
share. An assignment is the body with a few fields appended, so a large payload is encoded once. The body is decoded
again only for an attempt whose deadline differs from that of the first candidate.
"""

from typing import Any

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import replace

from router.domain.decide.decision import Intake, Refused
from router.domain.decide.request import (
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
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import DEFAULT_ATTEMPTS
from router.domain.tasks.attempts import DEFAULT_BACKOFF_MS
from router.wire.payload import MAX_PAYLOAD_BYTES, check_payload
from router.wire.problems import Problems

MAX_HEAD_BYTES = 64 * 1024
DEFAULT_PRIORITY = "normal"

# The beginning of a body whose request has no priority: each attempt then writes that of its decision in its place,
# without decoding the payload. Pods of version 0.1.0 pass the word `normal` on.
_NO_PRIORITY = b'{"version":"1","options":{"priority":"%b"' % DEFAULT_PRIORITY.encode()
_OWN_PRIORITY = b'{"version":"1","options":{"priority":%d'
_FORMAT = b"\x01"
_NEWLINE = b"\n"


class _Head(Struct, frozen=True, omit_defaults=True):
    """A request without payload and fingerprint.

    During a roll two versions read it: only add fields, always with a default.
    """

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
    """The tenant, the request and the correlation ids of a job: what events and headers need.

    `deadline_ms` is the deadline in the body. `timed`: the router added it to the payload as `timeout_ms`.
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
    """Encode the job of a request, or refuse it: the payload, or context and metadata, have more than 64 KiB.

    `deadline_ms` is the deadline of the first candidate. `max_attempts` applies when the request does not set it.
    """
    job_payload, timed = _job_payload(request.payload, deadline_ms)
    payload = orjson.dumps(job_payload)
    if len(payload) > MAX_PAYLOAD_BYTES:
        problems = Problems()
        check_payload(request.payload, problems)
        if problems:
            return problems.rejected().refused
    head = msgspec.json.encode(_head_of(request, deadline_ms, timed))
    if len(head) > MAX_HEAD_BYTES:
        problems = Problems()
        message = (
            f"with metadata and ids has {len(head):,} bytes; of a pushed task they may have {MAX_HEAD_BYTES:,} together"
        )
        hint = "send only what routing and the worker need"
        problems.add("context", message=message, hint=hint, intake=Intake.PAYLOAD_TOO_LARGE)
        return problems.rejected().refused
    job: JsonObject = {"type": request.task_type}
    body: dict[str, object] = {
        "version": "1",
        "options": _options(request.options, deadline_ms, max_attempts=max_attempts),
        "request_id": request.request_id,
        "tenant_id": request.tenant_id,
        "job": job | {"payload": orjson.Fragment(payload)},
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


def _options(options: Options, deadline_ms: int, *, max_attempts: int) -> JsonObject:
    """The options of the body. The priority comes first only if the request has none: see `_OWN_PRIORITY`."""
    retry: JsonObject = {
        "max_attempts": max_attempts if options.max_attempts is None else options.max_attempts,
        "backoff_ms": DEFAULT_BACKOFF_MS if options.backoff_ms is None else options.backoff_ms,
    }
    if options.priority is None:
        return {"priority": DEFAULT_PRIORITY, "deadline_ms": deadline_ms, "retry": retry}
    return {"deadline_ms": deadline_ms, "retry": retry, "priority": options.priority}


def _job_payload(payload: JsonValue, deadline_ms: int) -> tuple[JsonObject, bool]:
    """Return the object for `job.payload`, and whether `timeout_ms` was added, which existing workers read."""
    if payload is None:
        payload = {}
    if type(payload) is not dict:
        return {"value": payload}, False
    return (payload, False) if "timeout_ms" in payload else ({**payload, "timeout_ms": deadline_ms}, True)


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
        # Limits of the next attempts need the user as sent, whatever name the audit stores.
        user_id=r.user_id if r.owner_id is None else r.owner_id,
        client_ip=r.client_ip,
        step=r.step,
        constraints=r.constraints,
        # Pods of version 0.1.0 read only a text.
        options=r.options if r.options.priority is None else _with_text(r.options),
        correlation=r.correlation,
        assignment_subject=r.assignment_subject,
        deadline_ms=deadline_ms,
        timed=timed,
    )


def _with_text(options: Options) -> Options:
    return replace(options, priority=str(options.priority))


def request_of(job: bytes) -> DecideRequest:
    """Rebuild the request of a stored job, without payload and fingerprint: enough to plan the next attempt.

    :raises ValueError: the bytes are not a stored job in a format that this version reads.
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
    """Read the tenant, the request and the correlation ids of a stored job.

    :raises ValueError: the bytes are not a stored job in a format that this version reads.
    """
    return _read_origin(split(job)[0])


def assignment_body(job: bytes, origin: Origin, deadline_ms: int | None, *, priority: int) -> bytes:
    """Return the fields that the assignments of all attempts share, with `deadline_ms` if this attempt has its own.

    `priority` is that of the attempt's decision; it counts if the request has none.

    :raises ValueError: the bytes are not a stored job in a format that this version reads.
    """
    _, body = split(job)
    if body.startswith(_NO_PRIORITY):
        body = _OWN_PRIORITY % priority + body[len(_NO_PRIORITY) :]
    if deadline_ms in (None, origin.deadline_ms) or not origin.deadline_ms:
        return body
    doc = orjson.loads(body)
    doc["options"]["deadline_ms"] = deadline_ms
    if origin.timed:
        doc["job"]["payload"]["timeout_ms"] = deadline_ms
    return orjson.dumps(doc)


def split(job: bytes) -> tuple[bytes, bytes]:
    """Split a stored job into head and body.

    :raises ValueError: the bytes are not a stored job in a format that this version reads.
    """
    head, newline, body = job[1:].partition(_NEWLINE)
    if job[:1] != _FORMAT or not newline:
        raise ValueError(f"the stored job has format {job[:1].hex() or 'none'}; this version reads format 01")
    return head, body


def correlation_fields(correlation: Correlation, idempotency_key: str | None = None) -> JsonObject:
    """Return the correlation fields that are set, as every JSON event has them."""
    c = correlation
    fields = (
        ("trace_id", c.trace_id),
        ("run_id", c.run_id),
        ("flow_id", c.flow_id),
        ("step_id", c.step_id),
        ("idempotency_key", idempotency_key),
    )
    return {name: value for name, value in fields if value is not None}
