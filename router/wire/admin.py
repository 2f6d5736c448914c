"""Requests and replies of admin acts."""

from collections.abc import Mapping

import orjson
from msgspec import Struct

from router.domain.decide.request import DecideRequest
from router.domain.defects import Defect, Warnings
from router.domain.json import JsonObject
from router.wire.body import MAX_QUERY_BYTES, read_object
from router.wire.fields import MAX_TRACE_ID_CHARS, text
from router.wire.headers import with_lower_names
from router.wire.parse import HALF, parse_request
from router.wire.problems import Problems, Rejected
from router.wire.request.decide import decode
from router.wire.request.shapes import UNKNOWN_TASK, VERSION

_BEARER = "bearer "
_FREE = frozenset(("why", "payload", "task", "message", "input", "context", "metadata"))


class AdminRequest(Struct, frozen=True):
    """The request of an admin act: its fields, without the token; the token; the caller's trace id."""

    fields: JsonObject
    token: str | None
    trace_id: str | None = None
    warnings: Warnings = ()


def decode_admin(data: bytes, headers: Mapping[str, str] | None) -> AdminRequest | Rejected:
    """Decode the request of an admin act; an empty body means `{}`.

    The token comes from the header `authorization: Bearer …`, else from the field `api_key`.
    """
    warnings = Problems()
    doc = read_object(data or b"{}", MAX_QUERY_BYTES, warnings, parse_request)
    if isinstance(doc, Rejected):
        return doc
    headers = with_lower_names(headers)
    authorization = headers.get("authorization", "")
    trace_id = text(Problems(), "header trace_id", headers.get("trace_id"), MAX_TRACE_ID_CHARS)
    key = doc.get("api_key")
    token = key if isinstance(key, str) else None
    if authorization[: len(_BEARER)].lower() == _BEARER:
        token = authorization[len(_BEARER) :].strip()
    fields = {k: v for k, v in doc.items() if k != "api_key"}
    if any(w.defect is Defect.HALF_CHARACTER for w in warnings.warnings) and (halved := _halved(fields)):
        problems = Problems()
        for path in halved:
            problems.add(
                path, message="has half a character", hint="send whole characters: this field is a name, or is stored"
            )
        return problems.rejected()
    return AdminRequest(fields, token or None, trace_id, warnings.warnings)


def _halved(fields: JsonObject) -> list[str]:
    """The fields with half a character. A dry run's payload and a lever's reason may have one."""
    return [k for k, v in fields.items() if k not in _FREE and HALF in orjson.dumps(v).decode()]


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
