"""Status, look-up and admin acts: requests and replies."""

from collections.abc import Mapping
from enum import StrEnum

import orjson
from msgspec import Struct

from router.domain.decision import Intake
from router.domain.ids import from_text
from router.domain.json import JsonObject
from router.domain.request import DecideRequest
from router.wire.decide import decode
from router.wire.envelope import unreadable
from router.wire.fields import LONGEST_TRACE_ID, name, text
from router.wire.headers import lowered
from router.wire.parse import NotJsonError, parse
from router.wire.problems import Problems, Rejected, named
from router.wire.shapes import UNKNOWN_TASK, VERSION
from router.wire.subjects import DECIDE

QUEUE_OVERLOAD = 1000
LATENCY_OVERLOAD_MS = 5000
INFLIGHT_OVERLOAD = 500
_WARN_AT = 0.8
_MAX_BYTES = 64 * 1024
_BEARER = "bearer "


class Pressure(StrEnum):
    """How loaded the fleet's intake is."""

    ACTIVE = "active"
    WARNING = "warning"
    INACTIVE = "inactive"
    UNKNOWN = "unknown"


class Load(Struct, frozen=True):
    """Measured load; None where there was no measurement."""

    pending_messages: int | None
    latency_p95_ms: float | None
    inflight_messages: int | None


def pressure(load: Load) -> Pressure:
    """Active at a threshold, warning from 80 % of one; unknown when calm is not known of all three."""
    shares = [
        None if measured is None else measured / threshold
        for measured, threshold in (
            (load.pending_messages, QUEUE_OVERLOAD),
            (load.latency_p95_ms, LATENCY_OVERLOAD_MS),
            (load.inflight_messages, INFLIGHT_OVERLOAD),
        )
    ]
    worst = max((s for s in shares if s is not None), default=0.0)
    if worst >= 1:
        return Pressure.ACTIVE
    if worst >= _WARN_AT:
        return Pressure.WARNING
    return Pressure.UNKNOWN if None in shares else Pressure.INACTIVE


def encode_backpressure(load: Load, *, retry_after_s: int, max_retry_attempts: int, timestamp_ms: int) -> bytes:
    """The reply of `status.backpressure`."""
    data: JsonObject = {
        "subject": DECIDE,
        "status": pressure(load).value,
        "metrics": {
            "pending_messages": load.pending_messages,
            "latency_p95_ms": load.latency_p95_ms,
            "inflight_messages": load.inflight_messages,
        },
        "thresholds": {
            "queue_overload": QUEUE_OVERLOAD,
            "latency_overload_ms": LATENCY_OVERLOAD_MS,
            "inflight_overload": INFLIGHT_OVERLOAD,
        },
        "policy": {"retry_after_seconds": retry_after_s, "max_retry_attempts": max_retry_attempts},
        "timestamp": timestamp_ms,
    }
    return orjson.dumps({"success": True, "data": data})


class DecisionQuery(Struct, frozen=True):
    """Which decision is asked for. The first of decision_id (16 bytes), idempotency_key, request_id, message_id counts.

    `tenant_id` is None only together with a message_id.
    """

    tenant_id: str | None
    decision_id: bytes | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    message_id: str | None = None
    trace_id: str | None = None


def decode_decision_query(data: bytes, headers: Mapping[str, str] | None) -> DecisionQuery | Rejected:
    """A `get_decision` request. Never raises, whatever the bytes."""
    head = lowered(headers)
    doc = _object(data)
    if isinstance(doc, Rejected):
        return doc
    found = Problems()
    get = doc.get
    tenant = name(found, "tenant_id", get("tenant_id"))
    header = name(found, "header tenant_id", head.get("tenant_id"))
    if tenant is not None and header is not None and tenant != header:
        hint = "name one tenant, once"
        found.add("tenant_id", "header and body name different tenants", hint, Intake.TENANT_FORBIDDEN)
    given = get("decision_id")
    decision_id = from_text(given) if isinstance(given, str) else None
    if given is not None and decision_id is None:
        found.add("decision_id", f"is {named(given)} of another form", "a UUID, as this router gave it")
    query = DecisionQuery(
        header if tenant is None else tenant,
        decision_id,
        text(found, "idempotency_key", get("idempotency_key")),
        text(found, "request_id", get("request_id")),
        text(found, "message_id", get("message_id")),
        text(found, "trace_id", get("trace_id")),
    )
    # Bad ones were meant to name it, too.
    names = [f for f in ("decision_id", "idempotency_key", "request_id", "message_id") if get(f) is not None]
    if not names:
        found.add("request_id", "is missing", "name request_id, idempotency_key, decision_id or message_id")
    elif names != ["message_id"] and get("tenant_id") is None and "tenant_id" not in head:
        found.add("tenant_id", "is missing", "name the tenant")
    return found.rejected(query.request_id, query.trace_id) if found else query


class AdminRequest(Struct, frozen=True):
    """The fields of an admin act, the token that came with it (never among the fields), and the caller's trace."""

    fields: JsonObject
    token: str | None
    trace_id: str | None = None


def decode_admin(data: bytes, headers: Mapping[str, str] | None) -> AdminRequest | Rejected:
    """An admin act's request; an empty body is `{}`. Token: `authorization: Bearer …`, else the field `api_key`."""
    doc = _object(data or b"{}")
    if isinstance(doc, Rejected):
        return doc
    head = lowered(headers)
    authorization = head.get("authorization", "")
    trace_id = text(Problems(), "header trace_id", head.get("trace_id"), LONGEST_TRACE_ID)
    key = doc.get("api_key")
    token = key if isinstance(key, str) else None
    if authorization[: len(_BEARER)].lower() == _BEARER:
        token = authorization[len(_BEARER) :].strip()
    return AdminRequest({k: v for k, v in doc.items() if k != "api_key"}, token or None, trace_id)


def decode_dry_run(fields: JsonObject) -> DecideRequest | Rejected:
    """The request of a dry run: a decide request, or no more than tenant_id, policy_id and payload. Never raises."""
    doc = dict(fields)
    if "task" not in doc and "message" not in doc and "input" not in doc:
        doc["task"] = {"type": UNKNOWN_TASK, "payload": doc.pop("payload", None)}
    doc.setdefault("version", VERSION)
    return decode(orjson.dumps(doc), None, None)


def encode_admin(body: JsonObject) -> bytes:
    """The good answer of an admin act; errors go through `reply.encode`."""
    return orjson.dumps({"ok": True, **body})


def _object(data: bytes) -> JsonObject | Rejected:
    if len(data) > _MAX_BYTES:
        return unreadable(f"has {len(data)} bytes", f"at most {_MAX_BYTES} bytes", Intake.PAYLOAD_TOO_LARGE)
    try:
        doc = parse(data)
    except NotJsonError as e:
        return unreadable(str(e), "send one JSON object in UTF-8")
    return doc if type(doc) is dict else unreadable(f"is {named(doc)}", "send one JSON object")
