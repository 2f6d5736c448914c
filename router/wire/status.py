"""Requests and replies of backpressure status, `get_decision` and admin acts."""

from collections.abc import Mapping
from enum import StrEnum

import orjson
from msgspec import Struct

from router.domain.decision import Intake
from router.domain.ids import from_text
from router.domain.json import JsonObject
from router.domain.request import DecideRequest
from router.wire.fields import MAX_TRACE_ID_CHARS, text
from router.wire.headers import with_lower_names
from router.wire.parse import NotJsonError, parse
from router.wire.problems import Problems, Rejected, named
from router.wire.request.decide import decode
from router.wire.request.identity import agreed_tenant
from router.wire.request.shapes import UNKNOWN_TASK, VERSION
from router.wire.subjects import DECIDE
from router.wire.worker.envelope import unreadable

_WARN_AT = 0.8
_MAX_BYTES = 64 * 1024
_BEARER = "bearer "


class Pressure(StrEnum):
    """The load level of the fleet's intake."""

    ACTIVE = "active"
    WARNING = "warning"
    INACTIVE = "inactive"
    UNKNOWN = "unknown"


class Thresholds(Struct, frozen=True):
    """The load from which callers should slow down."""

    queue_overload: int = 1000
    latency_overload_ms: int = 5000
    inflight_overload: int = 500


_DEFAULT = Thresholds()


class Load(Struct, frozen=True):
    """The measured load; None: no measurement. `shed`: requests were refused as overloaded a moment ago."""

    pending_messages: int | None
    latency_p95_ms: float | None
    inflight_messages: int | None
    shed: bool = False


def pressure(load: Load, thresholds: Thresholds = _DEFAULT) -> Pressure:
    """Return active at a threshold or after a refusal, warning from 80 % of one; else inactive.

    Without all three values it is unknown, unless one of them says more.
    """
    if load.shed:
        return Pressure.ACTIVE
    shares = [
        None if measured is None else measured / threshold
        for measured, threshold in (
            (load.pending_messages, thresholds.queue_overload),
            (load.latency_p95_ms, thresholds.latency_overload_ms),
            (load.inflight_messages, thresholds.inflight_overload),
        )
    ]
    worst = max((s for s in shares if s is not None), default=0.0)
    if worst >= 1:
        return Pressure.ACTIVE
    if worst >= _WARN_AT:
        return Pressure.WARNING
    return Pressure.UNKNOWN if None in shares else Pressure.INACTIVE


def encode_backpressure(
    load: Load,
    thresholds: Thresholds = _DEFAULT,
    *,
    retry_after_s: int,
    max_retry_attempts: int,
    timestamp_ms: int,
) -> bytes:
    """Encode the reply of `status.backpressure`."""
    data: JsonObject = {
        "subject": DECIDE,
        "status": pressure(load, thresholds).value,
        "metrics": {
            "pending_messages": load.pending_messages,
            "latency_p95_ms": load.latency_p95_ms,
            "inflight_messages": load.inflight_messages,
        },
        "thresholds": {
            "queue_overload": thresholds.queue_overload,
            "latency_overload_ms": thresholds.latency_overload_ms,
            "inflight_overload": thresholds.inflight_overload,
        },
        "policy": {"retry_after_seconds": retry_after_s, "max_retry_attempts": max_retry_attempts},
        "timestamp": timestamp_ms,
    }
    return orjson.dumps({"success": True, "data": data})


class DecisionQuery(Struct, frozen=True):
    """The ids of the requested decision. decision_id is 16 bytes.

    The first of decision_id, idempotency_key, request_id and message_id that is set counts. `tenant_id` is None only
    together with a message_id.
    """

    tenant_id: str | None
    decision_id: bytes | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    message_id: str | None = None
    trace_id: str | None = None


def decode_decision_query(
    data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None = None
) -> DecisionQuery | Rejected:
    """Decode a `get_decision` request. Never raises, whatever the bytes.

    `subject_tenant` is the part of the subject after `get_decision.`; it binds the query to that tenant.
    """
    headers = with_lower_names(headers)
    doc = _object(data)
    if isinstance(doc, Rejected):
        return doc
    problems = Problems()
    get = doc.get
    tenant = agreed_tenant(get("tenant_id"), headers, subject_tenant, problems)
    id_text = get("decision_id")
    decision_id = from_text(id_text) if isinstance(id_text, str) else None
    if id_text is not None and decision_id is None:
        message = "is not a UUID" if isinstance(id_text, str) else f"is {named(id_text)}"
        problems.add("decision_id", message, "send the UUID as this router gave it")
    query = DecisionQuery(
        tenant_id=tenant,
        decision_id=decision_id,
        idempotency_key=text(problems, "idempotency_key", get("idempotency_key")),
        request_id=text(problems, "request_id", get("request_id")),
        message_id=text(problems, "message_id", get("message_id")),
        trace_id=text(problems, "trace_id", get("trace_id")),
    )
    # Invalid ids count as sent: their own problems are reported.
    ids_sent = [f for f in ("decision_id", "idempotency_key", "request_id", "message_id") if get(f) is not None]
    if not ids_sent:
        problems.add("request_id", "is missing", "send request_id, idempotency_key, decision_id or message_id")
    elif ids_sent != ["message_id"] and get("tenant_id") is None and not (headers.get("tenant_id") or subject_tenant):
        problems.add("tenant_id", "is missing", "send tenant_id in the body, in the header or in the subject")
    return problems.rejected(query.request_id, query.trace_id) if problems else query


class AdminRequest(Struct, frozen=True):
    """The request of an admin act: its fields, without the token; the token; the caller's trace id."""

    fields: JsonObject
    token: str | None
    trace_id: str | None = None


def decode_admin(data: bytes, headers: Mapping[str, str] | None) -> AdminRequest | Rejected:
    """Decode the request of an admin act; an empty body means `{}`.

    The token comes from the header `authorization: Bearer …`, else from the field `api_key`.
    """
    doc = _object(data or b"{}")
    if isinstance(doc, Rejected):
        return doc
    headers = with_lower_names(headers)
    authorization = headers.get("authorization", "")
    trace_id = text(Problems(), "header trace_id", headers.get("trace_id"), MAX_TRACE_ID_CHARS)
    key = doc.get("api_key")
    token = key if isinstance(key, str) else None
    if authorization[: len(_BEARER)].lower() == _BEARER:
        token = authorization[len(_BEARER) :].strip()
    return AdminRequest({k: v for k, v in doc.items() if k != "api_key"}, token or None, trace_id)


def decode_dry_run(fields: JsonObject) -> DecideRequest | Rejected:
    """Decode the request of a dry run: a decide request, or only tenant_id, policy_id and payload. Never raises."""
    doc = dict(fields)
    if "task" not in doc and "message" not in doc and "input" not in doc:
        doc["task"] = {"type": UNKNOWN_TASK, "payload": doc.pop("payload", None)}
    doc.setdefault("version", VERSION)
    return decode(orjson.dumps(doc), None, None)


def encode_admin(body: JsonObject) -> bytes:
    """Encode the reply of a successful admin act; `reply.encode` encodes errors."""
    return orjson.dumps({"ok": True, **body})


def _object(data: bytes) -> JsonObject | Rejected:
    if len(data) > _MAX_BYTES:
        return unreadable(f"has {len(data):,} bytes", f"send at most {_MAX_BYTES:,} bytes", Intake.PAYLOAD_TOO_LARGE)
    try:
        doc = parse(data)
    except NotJsonError as e:
        return unreadable(str(e), "send one JSON object in UTF-8")
    return doc if type(doc) is dict else unreadable(f"is {named(doc)}", "send one JSON object")
