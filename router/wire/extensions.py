"""Calls of extensions and their replies: JSON both ways."""

from collections.abc import Mapping

import orjson

from router.domain.extensions import MAX_REASON, Name, Reply, Stage
from router.domain.json import JsonObject, JsonValue
from router.domain.request import DecideRequest
from router.wire.parse import NotJsonError, is_writable, parse
from router.wire.problems import named, shown
from router.wire.reply import header_value
from router.wire.subjects import EXTENSION

MAX_REPLY_BYTES = 1 << 20
MAX_DETAILS_BYTES = 4096
# Of a post extension: it is kept with the answer for 24 hours.
MAX_KEPT_BYTES = 4096


def subject(name: Name) -> str:
    """Where an extension listens."""
    return f"{EXTENSION}.{name.stage.value}.{name.id}.v1"


def encode_call(request: DecideRequest, metadata: JsonObject, config: JsonObject) -> bytes:
    """What an extension is sent."""
    return orjson.dumps(
        {
            "trace_id": request.correlation.trace_id,
            "tenant_id": request.tenant_id,
            "payload": request.payload,
            "metadata": metadata,
            "config": config,
        }
    )


def call_headers(request: DecideRequest) -> Mapping[str, str]:
    """Tenant and trace, as on every message that a request causes."""
    c = request.correlation
    found = {"tenant_id": request.tenant_id, "trace_id": c.trace_id, "traceparent": c.traceparent}
    return {name: header_value(value) for name, value in found.items() if value is not None}


def decode_reply(data: bytes, stage: Stage) -> Reply | str:
    """The reply, or what is wrong with it. Never raises, whatever the bytes."""
    if len(data) > MAX_REPLY_BYTES:
        return f"the reply has {len(data)} bytes, allowed are {MAX_REPLY_BYTES}"
    try:
        doc = parse(data)
    except NotJsonError as fault:
        return f"the reply {fault}"
    if type(doc) is not dict:
        return f"the reply is {named(doc)}, not an object"
    if not is_writable(doc):
        return "the reply is nested too deep"
    if "seq" in doc and "stream" in doc:
        return "a JetStream stream answers on its subject"
    return _read(doc, stage)


def _read(doc: JsonObject, stage: Stage) -> Reply | str:
    metadata, valid, status = doc.get("metadata"), doc.get("valid"), doc.get("status")
    if metadata is not None and type(metadata) is not dict:
        return f"metadata is {named(metadata)}, not an object"
    if stage is Stage.POST and len(orjson.dumps(metadata)) > MAX_KEPT_BYTES:
        return f"metadata is larger than {MAX_KEPT_BYTES} bytes"
    if valid is not None and type(valid) is not bool:
        return f"valid is {named(valid)}, not a boolean"
    if status is not None and type(status) is not str:
        return f"status is {named(status)}, not a string"
    rejected = stage is Stage.VALIDATE and (valid is False or status == "reject")
    payload = doc.get("payload")
    changes = stage is Stage.PRE and payload is not None
    kept = metadata if type(metadata) is dict else {}
    return Reply(payload, changes, kept, rejected, _reason(doc.get("reason")), _details(doc.get("details")))


def _reason(value: JsonValue) -> str:
    return shown(value, MAX_REASON) if isinstance(value, str) else ""


def _details(value: JsonValue) -> JsonObject:
    """Information for the caller: what does not fit is left out, it must not cost the refusal."""
    if value is None:
        return {}
    found: JsonObject = value if isinstance(value, dict) else {"value": value}
    return found if len(orjson.dumps(found)) <= MAX_DETAILS_BYTES else {"truncated": True}
