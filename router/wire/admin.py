"""Requests and replies of admin acts."""

from collections.abc import Mapping

import orjson
from msgspec import Struct

from router.domain.json import JsonObject
from router.domain.request import DecideRequest
from router.wire.body import MAX_QUERY_BYTES, read_object
from router.wire.fields import MAX_TRACE_ID_CHARS, text
from router.wire.headers import with_lower_names
from router.wire.problems import Problems, Rejected
from router.wire.request.decide import decode
from router.wire.request.shapes import UNKNOWN_TASK, VERSION

_BEARER = "bearer "


class AdminRequest(Struct, frozen=True):
    """The request of an admin act: its fields, without the token; the token; the caller's trace id."""

    fields: JsonObject
    token: str | None
    trace_id: str | None = None


def decode_admin(data: bytes, headers: Mapping[str, str] | None) -> AdminRequest | Rejected:
    """Decode the request of an admin act; an empty body means `{}`.

    The token comes from the header `authorization: Bearer …`, else from the field `api_key`.
    """
    doc = read_object(data or b"{}", MAX_QUERY_BYTES)
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
