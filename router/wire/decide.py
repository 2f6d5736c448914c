"""Decide requests: bytes → `DecideRequest`.

Every field is checked in one pass that also runs when all is well: the checks of absent fields cost a comparison, so
there is no second, quicker set of rules that could come to differ. About 6 µs for a usual request of 400 bytes, of
which 1 µs is orjson and 0.6 µs the hash.
"""

from collections.abc import Mapping

import orjson
from google.protobuf.message import DecodeError
from msgspec.structs import force_setattr

from router.domain.decision import Intake
from router.domain.json import JsonObject
from router.domain.policy.model import DEFAULT_POLICY_ID
from router.domain.request import DecideRequest
from router.wire.envelope import unreadable
from router.wire.fields import MAX_MS, loose_flag, name, text
from router.wire.fingerprint import fingerprint
from router.wire.headers import NO_HEADERS, lowered
from router.wire.identity import correlation_of, idempotency_key_of, insist, new_request_id, tenant_of
from router.wire.job import check_payload
from router.wire.options import assignment_subject_of, constraints_of, context_of, options_of
from router.wire.parse import MAX_DEPTH, NotJsonError, is_writable, parse
from router.wire.problems import Problems, Rejected, named
from router.wire.route_request import is_protobuf, to_message_shape
from router.wire.shapes import Work, work_of

MAX_BYTES = 1 << 20
_TOO_DEEP = (f"is nested more than {MAX_DEPTH} deep", "flatten it, or send it as a string")


def decode(
    data: bytes,
    headers: Mapping[str, str] | None,
    subject_tenant: str | None,
    *,
    strict: bool = False,
    max_bytes: int = MAX_BYTES,
    result_prefixes: tuple[str, ...] = (),
    longest_deadline_ms: int = MAX_MS,
) -> DecideRequest | Rejected:
    """The request in the body, or everything that is wrong with it. Never raises, whatever the bytes.

    `headers` are matched without regard to case. `subject_tenant` is what followed `decide.` in the subject.
    `strict` is ROUTER_STRICT_CORRELATION. `result_prefixes` are allowed in options.result_subject beside `_INBOX.`,
    `longest_deadline_ms` is allowed in options.deadline_ms.
    """
    head = lowered(headers) if headers else NO_HEADERS
    if len(data) > max_bytes:
        hint = f"at most {max_bytes} bytes: store the payload elsewhere and send its payload_ref"
        return unreadable(f"has {len(data)} bytes", hint, Intake.PAYLOAD_TOO_LARGE)
    try:
        doc = to_message_shape(data, head) if head and _as_protobuf(data, head) else parse(data)
    except NotJsonError as e:
        return unreadable(str(e), "send one JSON object in UTF-8")
    except DecodeError:
        return unreadable("is not a beamline.flow.v1.RouteRequest", "drop the Content-Type header to send JSON")
    if type(doc) is not dict:
        return unreadable(f"is {named(doc)}", "send one JSON object")
    return _normalise(doc, head, subject_tenant, strict, result_prefixes, longest_deadline_ms)


def _as_protobuf(data: bytes, head: Mapping[str, str]) -> bool:
    return len(data) > 0 and is_protobuf(head.get("content-type"))


def _normalise(
    doc: JsonObject,
    head: Mapping[str, str],
    subject_tenant: str | None,
    strict: bool,
    result_prefixes: tuple[str, ...],
    longest_deadline_ms: int,
) -> DecideRequest | Rejected:
    found = Problems()
    get = doc.get
    work = work_of(doc, head, found)
    if (message_id := work.message_id) is not None:
        message_id = text(found, "message_id", message_id)
    given = get("request_id")
    request_id = message_id if given is None else text(found, "request_id", given)
    tenant_id = tenant_of(get("tenant_id"), work.inner_tenant, head, subject_tenant, found)
    if (policy_id := get("policy_id")) is not None:
        policy_id = name(found, "policy_id", policy_id)
    if (key := work.ids.get("idempotency_key")) is not None or head:
        key = idempotency_key_of(key, head, found)
    correlation = correlation_of(work.ids, head, found)
    context, user_id, client_ip, step = context_of(get("context"), head.get("x-client-ip"), found)
    constraints = constraints_of(get("constraints"), found)
    options = options_of(get("options"), result_prefixes, longest_deadline_ms, found)
    push = loose_flag(found, "push_assignment", get("push_assignment"))
    if (subject := get("assignment_subject")) is not None:
        subject = assignment_subject_of(subject, found)
    if strict:
        insist(request_id, work, correlation, found)
    if found:
        _note_the_rest(work, context, push, found)
        return found.rejected(request_id, correlation.trace_id)
    request = DecideRequest(
        tenant_id,
        request_id or new_request_id(),
        policy_id or DEFAULT_POLICY_ID,
        work.task_type,
        b"",
        work.payload,
        work.payload_ref,
        context,
        work.metadata,
        key,
        message_id,
        user_id,
        client_ip,
        step,
        constraints,
        options,
        correlation,
        push,
        subject,
    )
    return _sealed(request)


def _note_the_rest(work: Work, context: JsonObject, push: bool, found: Problems) -> None:
    """What a good request is refused for later, where it costs nothing to look: here it is told beside the others."""
    if not is_writable(work.metadata):
        found.add("metadata", *_TOO_DEEP)
    if not is_writable(work.payload) or not is_writable(context):
        found.add("", *_TOO_DEEP)
    elif push:
        check_payload(work.payload, found)


def _sealed(request: DecideRequest) -> DecideRequest | Rejected:
    found = Problems()
    if request.metadata and not is_writable(request.metadata):
        found.add("metadata", *_TOO_DEEP)
    try:
        force_setattr(request, "fingerprint", fingerprint(request))  # Nobody else has seen the request yet.
    except orjson.JSONEncodeError:
        found.add("", *_TOO_DEEP)
    return found.rejected(request.request_id, request.correlation.trace_id) if found else request
