"""Answers → bytes: always a reply, and always under 64 KiB."""

from typing import assert_never

import orjson
from msgspec import Struct

from router.domain.decision import PRIORITY, Answer, Decided, Decision, Reason, Refused
from router.domain.json import JsonObject, JsonValue
from router.wire.codes import NUMBERS, legacy
from router.wire.fields import MICROUSD
from router.wire.pb.beamline.flow.v1.flow_pb2 import RouteDecision
from router.wire.problems import shown
from router.wire.route_request import CONTENT_TYPE

MAX_REPLY_BYTES = 60 * 1024
_ITEMS_KEPT = 20
_LONGEST_HEADER = 1024
_SCALAR_BYTES = 1024

_LABELS = {reason: reason.label for reason in Reason}


class AssignmentState(Struct, frozen=True):
    """Where the task of a decision is. Ids are UUID texts."""

    assignment_id: str
    task_id: str
    attempt: int
    state: str


def encode(answer: Answer, *, request_id: str | None, trace_id: str | None, legacy_codes: bool = False) -> bytes:
    """The JSON reply. What makes it too long is left out, marked with `"truncated": true` beside the place.

    `request_id` and `trace_id` are the caller's own, also when the decision is a replay. `legacy_codes` is
    ROUTER_LEGACY_ERROR_CODES.
    """
    context: JsonObject = {"request_id": request_id}
    if trace_id is not None:
        context["trace_id"] = trace_id
    match answer:
        case Decided():
            return _decided(answer, context)
        case Refused():
            return _refused(answer, context, legacy_codes)
        case _:
            assert_never(answer)


def decision_object(d: Decision) -> JsonObject:
    """A decision as callers see it; the cost in USD."""
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
    """The reply of `get_decision`: the decision as it was answered, and what became of its task."""
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
    """Without what is only told for information, most dispensable first."""
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
    if legacy_codes and (known := legacy(code)) is not code:
        code, details = known, {**details, "code": answer.code.value}
    # An existing client crashes on a string in error.intake_error_code: the true one is in the details.
    error: JsonObject = {"code": code.value, "message": answer.message, "intake_error_code": None}
    if details:
        error["details"] = details
    body: JsonObject = {"ok": False, "error": error, "context": context}
    data = orjson.dumps(body)
    if len(data) <= MAX_REPLY_BYTES:
        return data
    for shrink in (_shortened, _scalars):
        error["details"] = shrink(details)
        error["message"] = shown(answer.message, _LONGEST_HEADER)
        data = orjson.dumps(body)
        if len(data) <= MAX_REPLY_BYTES:
            break
    return data


def _shortened(details: JsonObject) -> JsonObject:
    """Lists cut to their first items."""
    cut: JsonObject = {k: v[:_ITEMS_KEPT] if isinstance(v, list) else v for k, v in details.items()}
    cut["truncated"] = True
    return cut


def _scalars(details: JsonObject) -> JsonObject:
    """Only what is short: at most 32 numbers, codes and names."""
    short = [(k, v) for k, v in details.items() if not isinstance(v, list | dict) and _fits(k) and _fits(v)]
    return {**dict(short[:32]), "truncated": True}


def _fits(value: JsonValue) -> bool:
    return not isinstance(value, str) or len(value.encode()) <= _SCALAR_BYTES


def encode_protobuf(
    answer: Answer, *, request_id: str | None, trace_id: str | None, legacy_codes: bool = False
) -> tuple[bytes, dict[str, str]]:
    """The protobuf reply and its headers: a RouteDecision, or an empty body whose headers hold the error.

    What RouteDecision has no field for is in its metadata, as text.
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
                metadata=_as_text(answer),
            )
            return route.SerializeToString(), headers
        case Refused(code=code, message=message):
            told = legacy(code) if legacy_codes else code
            headers["Nats-Service-Error-Code"] = str(NUMBERS[told].http)
            headers["Nats-Service-Error"] = header_value(message)
            headers["x-error-code"] = told.value
            return b"", headers
        case _:
            assert_never(answer)


def _as_text(answer: Decided) -> dict[str, str]:
    d = answer.decision
    out = {key: value if isinstance(value, str) else orjson.dumps(value).decode() for key, value in d.metadata.items()}
    out["policy_id"] = d.policy_id
    out["policy_revision"] = str(d.policy_revision)
    out["decision_id"] = d.decision_id
    if d.sticky_key is not None:
        out["sticky_key"] = d.sticky_key
    if answer.assignment_id is not None:
        out["assignment_id"] = answer.assignment_id
    for name, is_so in (("fallback_used", d.fallback_used), ("degraded", d.degraded), ("replayed", answer.replayed)):
        if is_so:
            out[name] = "true"
    return out


def header_value(text: str) -> str:
    """A text that may stand in a header: one line, no control characters, at most 1,024 characters."""
    return shown(text, _LONGEST_HEADER)
