"""Results and acks: bytes → `domain.result`. Several forms are accepted; types are checked strictly."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from router.domain.decision import Intake
from router.domain.ids import from_text
from router.domain.json import JsonObject, JsonValue
from router.domain.request import Correlation, Step
from router.domain.result import AckStatus, ExecAck, ExecResult, Status
from router.wire.envelope import enum_member, open_envelope, unreadable
from router.wire.fields import MAX_MS, MAX_TOKENS, MAX_TRACE_ID_CHARS, microusd, name, text, text_unless_empty, whole
from router.wire.headers import traceparent_of, with_lower_names
from router.wire.options import names_step, step_of
from router.wire.parse import MAX_DEPTH, is_writable
from router.wire.pb.beamline.worker.v1 import ack_pb2, result_pb2
from router.wire.problems import Problems, Rejected, named
from router.wire.route_request import is_protobuf

MAX_BYTES = 4 << 20
_MAX_CODE_CHARS = 128
_MAX_MESSAGE_CHARS = 4096
# In an envelope it is the worker's own id.
_BARE_ONLY = frozenset(("provider_id",))


def decode_result(
    data: bytes, headers: Mapping[str, str] | None, *, max_bytes: int = MAX_BYTES
) -> ExecResult | Rejected:
    """Decode a result: bare, enveloped or protobuf. Never raises, whatever the bytes.

    A long error_message is cut to 4,096 characters, so that it does not cost the caller its result.
    """
    headers = with_lower_names(headers)
    if data and is_protobuf(headers.get("content-type")):
        try:
            return _result(_from_protobuf_result(data), headers)
        except DecodeError:
            return unreadable("is not a beamline.worker.v1.ExecResult", "drop the Content-Type header to send JSON")
    fields = open_envelope(data, "exec_result", max_bytes, bare_only=_BARE_ONLY)
    if isinstance(fields, Rejected):
        return fields
    return _result(_without_empty_texts(fields), headers)


def _result(doc: JsonObject, headers: Mapping[str, str]) -> ExecResult | Rejected:
    problems = Problems()
    get = doc.get
    status = enum_member(problems, "status", get("status"), Status)
    assignment_id = _id(problems, "assignment_id", get("assignment_id"))
    decision_id = _id(problems, "decision_id", get("decision_id"))
    request_id = text(problems, "request_id", get("request_id"))
    key = text(problems, "idempotency_key", get("idempotency_key"), intake=Intake.IDEMPOTENCY_VIOLATION)
    tenant_id = _tenant(doc, headers, problems)
    if get("assignment_id") is None and (tenant_id is None or (request_id or key or get("decision_id")) is None):
        problems.add(
            "assignment_id",
            "is missing",
            "send it, or tenant_id with one of request_id, idempotency_key and decision_id",
        )
    correlation = _correlation(doc, headers, problems)
    step = _step(doc, problems) if assignment_id is None and decision_id is None else None
    job_type = _job_type(doc, problems)
    output = get("output")
    if isinstance(output, list | dict) and not is_writable(output):
        problems.add("output", f"is nested more than {MAX_DEPTH} levels deep", "flatten it, or send it as a string")
    provider_id = text(problems, "provider_id", get("provider_id"))
    latency_ms = _rounded(problems, "latency_ms", get("latency_ms"))
    cost = microusd(problems, "cost", get("cost"))
    tokens = whole(problems, "tokens", get("tokens"), minimum=0, maximum=MAX_TOKENS)
    error_code = _code(problems, get("error_code"))
    error_message = _message(problems, "error_message", get("error_message"))
    if problems or status is None:
        return problems.rejected(request_id, correlation.trace_id)
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
        step=step,
    )


def _step(doc: JsonObject, problems: Problems) -> Step | None:
    """Read the step that the result belongs to from a context as the request had it; None: the result tells none."""
    context = doc.get("context")
    if type(context) is not dict or not names_step(context):
        return None
    return step_of({k: v for k, v in context.items() if v != ""}, problems)


def _from_protobuf_result(data: bytes) -> JsonObject:
    r = result_pb2.ExecResult.FromString(data)
    return {
        "assignment_id": r.assignment_id or None,
        "request_id": r.request_id or None,
        "status": r.status or None,
        "provider_id": r.provider_id or None,
        "job_type": r.job.type or None,
        # proto3 writes zero for an absent number; the reservation is charged then.
        "latency_ms": r.latency_ms or None,
        "cost": r.cost or None,
        "trace_id": r.trace_id or None,
        "tenant_id": r.tenant_id or None,
        "timestamp": r.timestamp or None,
        "error_code": r.error_code or None,
        "error_message": r.error_message or None,
    }


def decode_ack(data: bytes, headers: Mapping[str, str] | None, *, max_bytes: int = MAX_BYTES) -> ExecAck | Rejected:
    """Decode an ack: bare, enveloped or protobuf. Never raises, whatever the bytes."""
    headers = with_lower_names(headers)
    if data and is_protobuf(headers.get("content-type")):
        try:
            return _ack(_from_protobuf_ack(data), headers)
        except DecodeError:
            message = "is not a beamline.worker.v1.ExecAssignmentAck"
            return unreadable(message, "drop the Content-Type header to send JSON")
    fields = open_envelope(data, "exec_assignment_ack", max_bytes)
    return fields if isinstance(fields, Rejected) else _ack(_without_empty_texts(fields), headers)


def _ack(doc: JsonObject, headers: Mapping[str, str]) -> ExecAck | Rejected:
    problems = Problems()
    get = doc.get
    if get("assignment_id") is None:
        problems.add("assignment_id", "is missing", "send the assignment_id of the assignment")
    assignment_id = _id(problems, "assignment_id", get("assignment_id"))
    status = enum_member(problems, "status", get("status"), AckStatus)
    message_or_reason = get("message") if get("message") is not None else get("reason")
    message = _message(problems, "message", message_or_reason)
    request_id = text(problems, "request_id", get("request_id"))
    tenant_id = _tenant(doc, headers, problems)
    trace_id = _correlation(doc, headers, problems).trace_id
    if problems or status is None or assignment_id is None:
        return problems.rejected(request_id, trace_id)
    return ExecAck(
        assignment_id=assignment_id,
        status=status,
        message=message,
        request_id=request_id,
        tenant_id=tenant_id,
        trace_id=trace_id,
    )


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


def _without_empty_texts(fields: JsonObject) -> JsonObject:
    """Drop empty texts except an empty output: encoders write them for fields without a value."""
    return {k: v for k, v in fields.items() if v != "" or k == "output"}


def _id(problems: Problems, path: str, value: JsonValue) -> bytes | None:
    """Check an id that the router made; any other id is a problem, since it has no record."""
    if value is None:
        return None
    raw_id = from_text(value) if type(value) is str else None
    if raw_id is None:
        message = "is not a UUID" if type(value) is str else f"is {named(value)}"
        problems.add(path, message, "send the UUID as this router gave it")
    return raw_id


def _tenant(doc: JsonObject, headers: Mapping[str, str], problems: Problems) -> str | None:
    body = name(problems, "tenant_id", doc.get("tenant_id"))
    header = name(problems, "header tenant_id", headers.get("tenant_id"))
    if body is not None and header is not None and body != header:
        hint = "send one tenant, in one place"
        problems.add("tenant_id", "differs between header and body", hint, Intake.TENANT_FORBIDDEN)
    return header if body is None else body


def _correlation(doc: JsonObject, headers: Mapping[str, str], problems: Problems) -> Correlation:
    """Read the correlation ids. Malformed ids are dropped: they must not cost the caller its result."""
    ignored = Problems()
    trace_id: object = doc.get("trace_id")
    if trace_id is None:
        trace_id = headers.get("trace_id")
    return Correlation(
        trace_id=text(ignored, "trace_id", trace_id, MAX_TRACE_ID_CHARS),
        run_id=text(ignored, "run_id", doc.get("run_id")),
        flow_id=text(ignored, "flow_id", doc.get("flow_id")),
        step_id=text(ignored, "step_id", doc.get("step_id")),
        traceparent=traceparent_of(headers),
    )


def _job_type(doc: JsonObject, problems: Problems) -> str | None:
    job = doc.get("job")
    inner = job.get("type") if isinstance(job, dict) else None
    outer = doc.get("job_type")
    return text_unless_empty(problems, "job.type", inner) if outer is None else text(problems, "job_type", outer)


def _rounded(problems: Problems, path: str, value: JsonValue) -> int | None:
    """Check milliseconds and round them: workers measure fractions."""
    if type(value) is float and 0 <= value <= MAX_MS:
        return round(value)
    return whole(problems, path, value, minimum=0, maximum=MAX_MS)


def _code(problems: Problems, value: JsonValue) -> str | None:
    """Check an error code; a number such as 503 is a code too."""
    if type(value) is int:
        value = str(value)
    return text(problems, "error_code", value, _MAX_CODE_CHARS)


def _message(problems: Problems, path: str, value: JsonValue) -> str | None:
    """Check a text for people and cut it to 4,096 characters; it may have line breaks."""
    if value is None or type(value) is str:
        return value and value[:_MAX_MESSAGE_CHARS]
    problems.add(path, f"is {named(value)}", "send a string")
    return None
