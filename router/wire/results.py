"""What workers and callers report: bytes → `domain.result`. Liberal in form, exact in types."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from router.domain.decision import Intake
from router.domain.ids import from_text
from router.domain.json import JsonObject, JsonValue
from router.domain.request import Correlation
from router.domain.result import AckStatus, ExecAck, ExecResult, Status
from router.wire.envelope import body_of, unreadable, word
from router.wire.fields import LONGEST_TRACE_ID, MAX_MS, MAX_TOKENS, loose_text, microusd, name, text, whole
from router.wire.headers import lowered, traceparent_of
from router.wire.parse import is_writable
from router.wire.pb.beamline.worker.v1 import ack_pb2, result_pb2
from router.wire.problems import Problems, Rejected, named
from router.wire.route_request import is_protobuf

MAX_BYTES = 4 << 20
_LONGEST_CODE = 128
_LONGEST_MESSAGE = 4096


def decode_result(
    data: bytes, headers: Mapping[str, str] | None, *, max_bytes: int = MAX_BYTES
) -> ExecResult | Rejected:
    """A result: bare, enveloped or protobuf. Never raises, whatever the bytes.

    A long error_message is a fact, not a mistake: it is cut to 4,096 characters.
    """
    head = lowered(headers)
    if data and is_protobuf(head.get("content-type")):
        try:
            return _result(_from_protobuf_result(data), head, False)
        except DecodeError:
            return unreadable("is not a beamline.worker.v1.ExecResult", "drop the Content-Type header to send JSON")
    body = body_of(data, "exec_result", max_bytes)
    if isinstance(body, Rejected):
        return body
    return _result(_given(body.fields), head, body.enveloped)


def _result(doc: JsonObject, head: Mapping[str, str], enveloped: bool) -> ExecResult | Rejected:
    found = Problems()
    get = doc.get
    status = word(found, "status", get("status"), Status)
    assignment_id = _id(found, "assignment_id", get("assignment_id"))
    decision_id = _id(found, "decision_id", get("decision_id"))
    request_id = text(found, "request_id", get("request_id"))
    key = text(found, "idempotency_key", get("idempotency_key"), intake=Intake.IDEMPOTENCY_VIOLATION)
    tenant_id = _tenant(doc, head, found)
    if get("assignment_id") is None and (tenant_id is None or (request_id or key or get("decision_id")) is None):
        found.add("assignment_id", "is missing", "or name tenant_id with request_id, idempotency_key or decision_id")
    correlation = _correlation(doc, head, found)
    job_type = _job_type(doc, found)
    output = get("output")
    if isinstance(output, list | dict) and not is_writable(output):
        found.add("output", "is nested too deep", "flatten it, or send it as a string")
    provider_id = text(found, "provider_id", get("provider_id"))
    latency_ms = _rounded(found, "latency_ms", get("latency_ms"))
    cost = microusd(found, "cost", get("cost"))
    tokens = whole(found, "tokens", get("tokens"), 0, MAX_TOKENS)
    error_code = _code(found, get("error_code"))
    error_message = _message(found, "error_message", get("error_message"))
    if found or status is None:
        return found.rejected(request_id, correlation.trace_id)
    return ExecResult(
        status=status,
        assignment_id=assignment_id,
        decision_id=decision_id,
        request_id=request_id,
        idempotency_key=key,
        tenant_id=tenant_id,
        provider_id=provider_id,
        job_type=job_type,
        latency_ms=latency_ms,
        cost_microusd=cost,
        tokens=tokens,
        output=output,
        error_code=error_code,
        error_message=error_message,
        timestamp=get("timestamp"),
        correlation=correlation,
    )


def _from_protobuf_result(data: bytes) -> JsonObject:
    r = result_pb2.ExecResult.FromString(data)
    return {
        "assignment_id": r.assignment_id or None,
        "request_id": r.request_id or None,
        "status": r.status or None,
        "provider_id": r.provider_id or None,
        "job_type": r.job.type or None,
        # Zero is what proto3 says for "not said": the reservation stands then.
        "latency_ms": r.latency_ms or None,
        "cost": r.cost or None,
        "trace_id": r.trace_id or None,
        "tenant_id": r.tenant_id or None,
        "timestamp": r.timestamp or None,
        "error_code": r.error_code or None,
        "error_message": r.error_message or None,
    }


def decode_ack(data: bytes, headers: Mapping[str, str] | None, *, max_bytes: int = MAX_BYTES) -> ExecAck | Rejected:
    """A receipt: bare, enveloped or protobuf. Never raises, whatever the bytes."""
    head = lowered(headers)
    if data and is_protobuf(head.get("content-type")):
        try:
            return _ack(_from_protobuf_ack(data), head)
        except DecodeError:
            what = "is not a beamline.worker.v1.ExecAssignmentAck"
            return unreadable(what, "drop the Content-Type header to send JSON")
    body = body_of(data, "exec_assignment_ack", max_bytes)
    return body if isinstance(body, Rejected) else _ack(_given(body.fields), head)


def _ack(doc: JsonObject, head: Mapping[str, str]) -> ExecAck | Rejected:
    found = Problems()
    get = doc.get
    if get("assignment_id") is None:
        found.add("assignment_id", "is missing", "name the assignment")
    assignment_id = _id(found, "assignment_id", get("assignment_id"))
    status = word(found, "status", get("status"), AckStatus)
    said = get("message") if get("message") is not None else get("reason")
    message = _message(found, "message", said)
    request_id = text(found, "request_id", get("request_id"))
    tenant_id = _tenant(doc, head, found)
    trace_id = _correlation(doc, head, found).trace_id
    if found or status is None or assignment_id is None:
        return found.rejected(request_id, trace_id)
    return ExecAck(assignment_id, status, message, request_id, tenant_id, trace_id)


def _from_protobuf_ack(data: bytes) -> JsonObject:
    a = ack_pb2.ExecAssignmentAck.FromString(data)
    return {
        "assignment_id": a.assignment_id or None,
        "status": a.status or None,
        "message": a.message or None,
        "request_id": a.request_id or None,
        "trace_id": a.trace_id or None,
        "tenant_id": a.tenant_id or None,
    }


def _given(fields: JsonObject) -> JsonObject:
    """Without empty texts: encoders write them for what they do not have, and must not lose their report by it."""
    return {k: v for k, v in fields.items() if v != "" or k == "output"}


def _id(found: Problems, path: str, value: JsonValue) -> bytes | None:
    """One of the ids that we hand out. Somebody else's is a problem: there is no record of it."""
    if value is None:
        return None
    some_id = from_text(value) if type(value) is str else None
    if some_id is None:
        found.add(path, f"is {named(value)} of another form", "a UUID, as this router gave it")
    return some_id


def _tenant(doc: JsonObject, head: Mapping[str, str], found: Problems) -> str | None:
    body = name(found, "tenant_id", doc.get("tenant_id"))
    header = name(found, "header tenant_id", head.get("tenant_id"))
    if body is not None and header is not None and body != header:
        hint = "name one tenant, once"
        found.add("tenant_id", "header and body name different tenants", hint, Intake.TENANT_FORBIDDEN)
    return header if body is None else body


def _correlation(doc: JsonObject, head: Mapping[str, str], found: Problems) -> Correlation:
    """The ids that came along; malformed ones are dropped: they must not cost the caller its result."""
    aside = Problems()
    trace_id = doc.get("trace_id")
    return Correlation(
        text(aside, "trace_id", head.get("trace_id") if trace_id is None else trace_id, LONGEST_TRACE_ID),
        text(aside, "run_id", doc.get("run_id")),
        text(aside, "flow_id", doc.get("flow_id")),
        text(aside, "step_id", doc.get("step_id")),
        traceparent_of(head),
    )


def _job_type(doc: JsonObject, found: Problems) -> str | None:
    job = doc.get("job")
    inner = job.get("type") if isinstance(job, dict) else None
    outer = doc.get("job_type")
    return loose_text(found, "job.type", inner) if outer is None else text(found, "job_type", outer)


def _rounded(found: Problems, path: str, value: JsonValue) -> int | None:
    """Milliseconds, rounded: workers measure in fractions."""
    if type(value) is float and 0 <= value <= MAX_MS:
        return round(value)
    return whole(found, path, value, 0, MAX_MS)


def _code(found: Problems, value: JsonValue) -> str | None:
    """An error code; numbers such as 503 are codes too."""
    if type(value) is int:
        value = str(value)
    return text(found, "error_code", value, _LONGEST_CODE)


def _message(found: Problems, path: str, value: JsonValue) -> str | None:
    """A text for people, cut to 4,096 characters; it may hold line breaks."""
    if value is None or type(value) is str:
        return value and value[:_LONGEST_MESSAGE]
    found.add(path, f"is {named(value)}", "a string")
    return None
