"""Results and acks: bytes → `domain.tasks.result`.

The work is done, so a report is refused only if a defect leaves open which task ended, or how.
"""

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError
from msgspec.structs import replace

from router.domain.decide.request import Correlation, Step
from router.domain.ids import from_text
from router.domain.json import JsonObject, JsonValue
from router.domain.tasks.result import AckStatus, ExecAck, ExecResult, ResultStatus
from router.wire.body import unreadable
from router.wire.fields import MAX_TRACE_ID_CHARS, json_object, text, text_unless_empty
from router.wire.headers import readable, traceparent_of, with_lower_names
from router.wire.parse import HALF, MAX_DEPTH, is_writable
from router.wire.pb.beamline.worker.v1 import ack_pb2, result_pb2
from router.wire.problems import Problems, Rejected, named
from router.wire.request.identity import agreed_tenant
from router.wire.request.options import names_step, step_of
from router.wire.request.protobuf import is_protobuf, parse_protobuf
from router.wire.worker.envelope import enum_member, open_envelope
from router.wire.worker.measures import cost_of, latency_of, tokens_of

MAX_BYTES = 4 << 20
_MAX_CODE_CHARS = 128
_MAX_MESSAGE_CHARS = 4096
# In an envelope it is the worker's own id.
_BARE_ONLY = frozenset(("provider_id",))


def decode_result(
    data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None = None, *, max_bytes: int = MAX_BYTES
) -> ExecResult | Rejected:
    """Decode a result: bare, enveloped or protobuf. Never raises, whatever the bytes.

    `subject_tenant` is the tenant that its subject is bound to.
    Settling needs version, status, tenant and the id that finds the task: they are exact. A defect in any other field
    drops the field, with a warning. A long error_message is cut to 4,096 characters.
    """
    dropped = Problems()
    headers = readable(with_lower_names(headers), dropped)
    if data and is_protobuf(headers.get("content-type")):
        try:
            fields: JsonObject | Rejected = _from_protobuf_result(parse_protobuf(result_pb2.ExecResult, data, dropped))
        except DecodeError:
            return unreadable(
                "is not a beamline.worker.v1.ExecResult", hint="drop the Content-Type header to send JSON"
            )
    else:
        fields = open_envelope(data, "exec_result", max_bytes, dropped, bare_only=_BARE_ONLY)
    return (
        fields
        if isinstance(fields, Rejected)
        else _result(_without_empty_texts(fields), headers, subject_tenant, dropped)
    )


def _result(
    doc: JsonObject, headers: Mapping[str, str], subject_tenant: str | None, dropped: Problems
) -> ExecResult | Rejected:
    problems = Problems()
    get = doc.get
    status = enum_member(problems, "status", get("status"), ResultStatus, dropped)
    tenant_id = agreed_tenant(get("tenant_id"), headers, subject_tenant, problems)
    assignment_id = _id(problems, "assignment_id", get("assignment_id"))
    # The first of these ids finds the task, so it must be exact; the others are ignored.
    finding = problems if assignment_id is None else dropped
    decision_id = _id(finding, "decision_id", get("decision_id"))
    finding = finding if decision_id is None else dropped
    key = _exact(finding, "idempotency_key", get("idempotency_key"), dropped)
    request_id = _exact(finding if key is None else dropped, "request_id", get("request_id"), dropped)
    named = any(get(field) is not None for field in ("request_id", "idempotency_key", "decision_id"))
    if get("assignment_id") is None and (tenant_id is None or not named):
        problems.add(
            "assignment_id",
            message="is missing",
            hint="send it, or tenant_id with one of request_id, idempotency_key and decision_id",
        )
    step = _step(doc, problems) if assignment_id is None and decision_id is None else None
    correlation = _correlation(doc, headers, dropped)
    if problems or status is None:
        return problems.rejected(request_id=request_id, trace_id=correlation.trace_id)
    tokens = tokens_of(get("tokens"), dropped)
    return _with_warnings(
        ExecResult(
            status=status,
            assignment_id=assignment_id,
            decision_id=decision_id,
            request_id=request_id,
            idempotency_key=key,
            tenant_id=tenant_id,
            provider_id=text(dropped, "provider_id", get("provider_id")),
            job_type=_job_type(doc, dropped),
            latency_ms=latency_of(get("latency_ms"), dropped),
            cost_microusd=cost_of(get("cost"), dropped),
            tokens=tokens.total,
            tokens_input=tokens.input,
            tokens_output=tokens.output,
            output=_output(get("output"), dropped),
            error_code=_code(dropped, get("error_code")),
            error_message=_message(dropped, "error_message", get("error_message")),
            timestamp=get("timestamp"),
            correlation=correlation,
            step=step,
        ),
        dropped,
    )


def _step(doc: JsonObject, problems: Problems) -> Step | None:
    """Read the step that the result belongs to from a context like the request's; None: the result has none."""
    context = doc.get("context")
    if type(context) is not dict or not names_step(context):
        return None
    return step_of({k: v for k, v in context.items() if v != ""}, problems)


Report = TypeVar("Report", ExecResult, ExecAck)


def _with_warnings(report: Report, dropped: Problems) -> Report:
    dropped.drop_fields()
    return replace(report, warnings=dropped.warnings) if dropped.warnings else report


def _from_protobuf_result(r: result_pb2.ExecResult) -> JsonObject:
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


def decode_ack(
    data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None = None, *, max_bytes: int = MAX_BYTES
) -> ExecAck | Rejected:
    """Decode an ack: bare, enveloped or protobuf. Never raises, whatever the bytes.

    `subject_tenant` is the tenant that its subject is bound to.
    """
    dropped = Problems()
    headers = readable(with_lower_names(headers), dropped)
    if data and is_protobuf(headers.get("content-type")):
        try:
            fields: JsonObject | Rejected = _from_protobuf_ack(parse_protobuf(ack_pb2.ExecAssignmentAck, data, dropped))
        except DecodeError:
            message = "is not a beamline.worker.v1.ExecAssignmentAck"
            return unreadable(message, hint="drop the Content-Type header to send JSON")
    else:
        fields = open_envelope(data, "exec_assignment_ack", max_bytes, dropped)
    return (
        fields if isinstance(fields, Rejected) else _ack(_without_empty_texts(fields), headers, subject_tenant, dropped)
    )


def _ack(
    doc: JsonObject, headers: Mapping[str, str], subject_tenant: str | None, dropped: Problems
) -> ExecAck | Rejected:
    problems = Problems()
    get = doc.get
    if get("assignment_id") is None:
        problems.add("assignment_id", message="is missing", hint="send the assignment_id of the assignment")
    assignment_id = _id(problems, "assignment_id", get("assignment_id"))
    status = enum_member(problems, "status", get("status"), AckStatus, dropped)
    tenant_id = agreed_tenant(get("tenant_id"), headers, subject_tenant, problems)
    request_id = text(dropped, "request_id", get("request_id"))
    trace_id = _correlation(doc, headers, dropped).trace_id
    if problems or status is None or assignment_id is None:
        return problems.rejected(request_id=request_id, trace_id=trace_id)
    message_or_reason = get("message") if get("message") is not None else get("reason")
    return _with_warnings(
        ExecAck(
            assignment_id=assignment_id,
            status=status,
            message=_message(dropped, "message", message_or_reason),
            request_id=request_id,
            tenant_id=tenant_id,
            trace_id=trace_id,
        ),
        dropped,
    )


def _from_protobuf_ack(a: ack_pb2.ExecAssignmentAck) -> JsonObject:
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
        problems.add(path, message=message, hint="send the UUID exactly as this router returned it")
    return raw_id


def _exact(problems: Problems, path: str, value: JsonValue, dropped: Problems) -> str | None:
    """Check an id that names a request: one with half a character could name another request."""
    checked = text(problems, path, value)
    if checked is None or HALF not in checked or not dropped.warnings:
        return checked
    problems.add(path, message="has half a character", hint="send it exactly as in the request")
    return None


def _correlation(doc: JsonObject, headers: Mapping[str, str], dropped: Problems) -> Correlation:
    trace_id: object = doc.get("trace_id")
    path = "trace_id"
    if trace_id is None:
        path, trace_id = "header trace_id", headers.get("trace_id")
    return Correlation(
        trace_id=text(dropped, path, trace_id, MAX_TRACE_ID_CHARS),
        run_id=text(dropped, "run_id", doc.get("run_id")),
        flow_id=text(dropped, "flow_id", doc.get("flow_id")),
        step_id=text(dropped, "step_id", doc.get("step_id")),
        traceparent=traceparent_of(headers),
    )


def _job_type(doc: JsonObject, dropped: Problems) -> str | None:
    job = json_object(dropped, "job", doc.get("job"))
    inner = None if job is None else job.get("type")
    outer = doc.get("job_type")
    return text_unless_empty(dropped, "job.type", inner) if outer is None else text(dropped, "job_type", outer)


def _output(value: JsonValue, dropped: Problems) -> JsonValue:
    if isinstance(value, list | dict) and not is_writable(value):
        dropped.add("output", message=f"is nested more than {MAX_DEPTH} levels deep")
        return None
    return value


def _code(problems: Problems, value: JsonValue) -> str | None:
    """Check an error code; a number such as 503 is a code too."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        value = str(int(value))
    return text(problems, "error_code", value, _MAX_CODE_CHARS)


def _message(problems: Problems, path: str, value: JsonValue) -> str | None:
    """Check a text for people and cut it to 4,096 characters; it may have line breaks."""
    if value is None or type(value) is str:
        return value and value[:_MAX_MESSAGE_CHARS]
    problems.add(path, message=f"is {named(value)}", hint="send a string")
    return None
