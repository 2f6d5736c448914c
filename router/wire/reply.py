"""Answers → replies: every answer can be encoded, and no reply exceeds 60 KiB."""

from typing import assert_never

import orjson
from msgspec import Struct

from router.domain.decide.decision import PRIORITY, Answer, Decided, Decision, Reason, Refused
from router.domain.defects import Warnings, note_of
from router.domain.json import JsonObject, JsonValue
from router.wire.codes import NUMBERS, legacy
from router.wire.fields import MICROUSD
from router.wire.pb.beamline.flow.v1.flow_pb2 import RouteDecision
from router.wire.problems import printable
from router.wire.request.protobuf import CONTENT_TYPE

MAX_REPLY_BYTES = 60 * 1024
_ITEMS_KEPT = 20
_MAX_HEADER_CHARS = 1024
_SCALAR_BYTES = 1024

_LABELS = {reason: reason.label for reason in Reason}


class AssignmentState(Struct, frozen=True):
    """The state of a decision's task. Ids are UUID texts."""

    assignment_id: str
    task_id: str
    attempt: int
    state: str


def encode(
    answer: Answer,
    *,
    request_id: str | None,
    trace_id: str | None,
    legacy_codes: bool = False,
    warnings: Warnings = (),
) -> bytes:
    """Encode the JSON reply. A reply that is too long loses its optional parts; `"truncated": true` marks the place.

    `request_id` and `trace_id` are those of this call, even when the decision is a replay. `legacy_codes` is
    ROUTER_LEGACY_ERROR_CODES. `warnings`: defects of the request that did not cost it.
    """
    context: JsonObject = {"request_id": request_id}
    if trace_id is not None:
        context["trace_id"] = trace_id
    if warnings:
        context["warnings"] = [w.text for w in warnings]
    match answer:
        case Decided():
            return _decided(answer, context)
        case Refused():
            return _refused(answer, context, legacy_codes)
        case _:
            assert_never(answer)


def decision_object(d: Decision) -> JsonObject:
    """Convert a decision to the JSON object that callers get; the cost is in USD."""
    out: JsonObject = {
        "provider_id": d.provider_id,
        "priority": PRIORITY[d.reason],
        "reason": _LABELS[d.reason],
        "expected_latency_ms": d.expected_latency_ms,
        "expected_cost": d.expected_cost_microusd / MICROUSD,
        "policy_id": d.policy_id,
        "policy_revision": d.policy_revision,
        "decision_id": d.decision_id,
    }
    if d.sticky_key is not None:
        out["sticky_key"] = d.sticky_key
    if d.fallback_used:
        out["fallback_used"] = True
    if d.degraded:
        out["degraded"] = True
    if d.metadata:
        out["metadata"] = d.metadata
    return out


def _decided(answer: Decided, context: JsonObject) -> bytes:
    if answer.replayed:
        context["replayed"] = True
    if answer.assignment_id is not None:
        context["assignment_id"] = answer.assignment_id
    if answer.explain is not None:
        context["explain"] = answer.explain
    decision = decision_object(answer.decision)
    body: JsonObject = {"ok": True, "decision": decision, "context": context}
    data = orjson.dumps(body)
    return data if len(data) <= MAX_REPLY_BYTES else _shrunk(body, decision, context)


def encode_stored(
    answer: Decided, *, request_id: str | None, trace_id: str | None, assignment: AssignmentState | None = None
) -> bytes:
    """Encode the reply of `get_decision`: the original decision and the state of its task."""
    context: JsonObject = {"request_id": request_id}
    if trace_id is not None:
        context["trace_id"] = trace_id
    if answer.assignment_id is not None:
        context["assignment_id"] = answer.assignment_id
    decision = decision_object(answer.decision)
    body: JsonObject = {"ok": True, "decision": decision, "context": context}
    if assignment is not None:
        body["assignment"] = {
            "assignment_id": assignment.assignment_id,
            "task_id": assignment.task_id,
            "attempt": assignment.attempt,
            "state": assignment.state,
        }
    data = orjson.dumps(body)
    return data if len(data) <= MAX_REPLY_BYTES else _shrunk(body, decision, context)


def _shrunk(body: JsonObject, decision: JsonObject, context: JsonObject) -> bytes:
    """Encode the body without its informative fields, dropping the least important first."""
    if "explain" in context:
        context["explain"] = {"truncated": True}
    data = orjson.dumps(body)
    for field in ("metadata", "sticky_key"):
        if len(data) > MAX_REPLY_BYTES and decision.pop(field, None) is not None:
            context["truncated"] = True
            data = orjson.dumps(body)
    return data


def _refused(answer: Refused, context: JsonObject, legacy_codes: bool) -> bytes:
    code, details = answer.code, answer.details
    if legacy_codes and (legacy_code := legacy(code)) is not code:
        code, details = legacy_code, {**details, "code": answer.code.value}
    # An existing client crashes on a string in error.intake_error_code: the value is in the details.
    error: JsonObject = {"code": code.value, "message": answer.message, "intake_error_code": None}
    if details:
        error["details"] = details
    body: JsonObject = {"ok": False, "error": error, "context": context}
    data = orjson.dumps(body)
    if len(data) <= MAX_REPLY_BYTES:
        return data
    for shrink in (_shortened, _scalars):
        error["details"] = shrink(details)
        error["message"] = printable(answer.message, _MAX_HEADER_CHARS)
        data = orjson.dumps(body)
        if len(data) <= MAX_REPLY_BYTES:
            break
    return data


def _shortened(details: JsonObject) -> JsonObject:
    """Cut lists to their first 20 items."""
    cut: JsonObject = {k: v[:_ITEMS_KEPT] if isinstance(v, list) else v for k, v in details.items()}
    cut["truncated"] = True
    return cut


def _scalars(details: JsonObject) -> JsonObject:
    """Keep at most 32 short scalars, such as numbers, codes and names."""
    short = [(k, v) for k, v in details.items() if not isinstance(v, list | dict) and _fits(k) and _fits(v)]
    return {**dict(short[:32]), "truncated": True}


def _fits(value: JsonValue) -> bool:
    return not isinstance(value, str) or len(value.encode()) <= _SCALAR_BYTES


def encode_protobuf(
    answer: Answer,
    *,
    request_id: str | None,
    trace_id: str | None,
    legacy_codes: bool = False,
    warnings: Warnings = (),
) -> tuple[bytes, dict[str, str]]:
    """Encode the protobuf reply and its headers: a RouteDecision, or an empty body with the error in the headers.

    Facts for which RouteDecision has no field go into its metadata as text.
    """
    headers: dict[str, str] = {}
    if request_id is not None:
        headers["request_id"] = header_value(request_id)
    if trace_id is not None:
        headers["trace_id"] = header_value(trace_id)
    match answer:
        case Decided(decision=d):
            headers["Content-Type"] = CONTENT_TYPE
            route = RouteDecision(
                provider_id=d.provider_id,
                reason=_LABELS[d.reason],
                priority=PRIORITY[d.reason],
                expected_latency_ms=d.expected_latency_ms,
                expected_cost=d.expected_cost_microusd / MICROUSD,
                metadata=_text_metadata(answer, warnings),
            )
            return route.SerializeToString(), headers
        case Refused(code=code, message=message):
            reply_code = legacy(code) if legacy_codes else code
            headers["Nats-Service-Error-Code"] = str(NUMBERS[reply_code].http)
            headers["Nats-Service-Error"] = header_value(message)
            headers["x-error-code"] = reply_code.value
            return b"", headers
        case _:
            assert_never(answer)


def _text_metadata(answer: Decided, warnings: Warnings) -> dict[str, str]:
    d = answer.decision
    out = {key: value if isinstance(value, str) else orjson.dumps(value).decode() for key, value in d.metadata.items()}
    out["policy_id"] = d.policy_id
    out["policy_revision"] = str(d.policy_revision)
    out["decision_id"] = d.decision_id
    if d.sticky_key is not None:
        out["sticky_key"] = d.sticky_key
    if answer.assignment_id is not None:
        out["assignment_id"] = answer.assignment_id
    if (note := note_of(warnings=warnings)) is not None:
        out["warnings"] = note
    for name, is_set in (("fallback_used", d.fallback_used), ("degraded", d.degraded), ("replayed", answer.replayed)):
        if is_set:
            out[name] = "true"
    return out


def header_value(text: str) -> str:
    """Make a text safe for a header: one line, no control characters, at most 1,024 characters."""
    return printable(text, _MAX_HEADER_CHARS)
