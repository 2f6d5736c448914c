"""Calls of extensions and their replies, both in JSON."""

from collections.abc import Mapping

import orjson

from router.domain.decide.request import DecideRequest
from router.domain.defects import Warnings
from router.domain.extensions.pipeline import MAX_REASON, ExtensionName, Reply, Stage
from router.domain.json import JsonObject, JsonValue
from router.wire.parse import MAX_DEPTH, NotJsonError, is_writable, parse_request
from router.wire.problems import Problems, named, printable
from router.wire.reply import header_value
from router.wire.subjects import EXTENSION

MAX_REPLY_BYTES = 1 << 20
MAX_DETAILS_BYTES = 4096
# The metadata of a post extension is stored with the answer for 24 hours.
MAX_POST_METADATA_BYTES = 4096


def subject(name: ExtensionName) -> str:
    """Return the subject of an extension."""
    return f"{EXTENSION}.{name.stage.value}.{name.id}.v1"


def encode_call(request: DecideRequest, metadata: JsonObject, *, config: JsonObject) -> bytes:
    """Encode the call of an extension."""
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
    """Return the headers of a call: tenant and trace, as on every message that a request causes."""
    c = request.correlation
    headers = {"tenant_id": request.tenant_id, "trace_id": c.trace_id, "traceparent": c.traceparent}
    return {name: header_value(value) for name, value in headers.items() if value is not None}


def decode_reply(data: bytes, stage: Stage) -> Reply | str:
    """Decode a reply, or describe what is wrong with it. Never raises, whatever the bytes."""
    if len(data) > MAX_REPLY_BYTES:
        return f"the reply has {len(data):,} bytes; at most {MAX_REPLY_BYTES:,} are allowed"
    try:
        doc = parse_request(data, warnings := Problems())
    except NotJsonError as e:
        return f"the reply {e}"
    if type(doc) is not dict:
        return f"the reply is {named(doc)}; it must be an object"
    if not is_writable(doc):
        return f"the reply is nested more than {MAX_DEPTH} levels deep"
    if "seq" in doc and "stream" in doc:
        return "the reply is an ack of a JetStream stream: exclude the extension's subject from the stream"
    return _read(doc, stage, warnings.warnings)


def _read(doc: JsonObject, stage: Stage, warnings: Warnings) -> Reply | str:
    metadata, valid, status = doc.get("metadata"), doc.get("valid"), doc.get("status")
    if metadata is not None and type(metadata) is not dict:
        return f"metadata is {named(metadata)}; it must be an object"
    if stage is Stage.POST and len(orjson.dumps(metadata)) > MAX_POST_METADATA_BYTES:
        return f"metadata has more than {MAX_POST_METADATA_BYTES:,} bytes"
    if valid is not None and type(valid) is not bool:
        return f"valid is {named(valid)}; it must be a boolean"
    if status is not None and type(status) is not str:
        return f"status is {named(status)}; it must be a string"
    rejected = stage is Stage.VALIDATE and (valid is False or status == "reject")
    payload = doc.get("payload")
    return Reply(
        payload=payload,
        changes_payload=stage is Stage.PRE and payload is not None,
        metadata=metadata if type(metadata) is dict else {},
        rejected=rejected,
        reason=_reason(doc.get("reason")),
        details=_details(doc.get("details")),
        warnings=warnings,
    )


def _reason(value: JsonValue) -> str:
    return printable(value, MAX_REASON) if isinstance(value, str) else ""


def _details(value: JsonValue) -> JsonObject:
    """Limit the information for the caller; details that are too large are replaced, and the refusal stands."""
    if value is None:
        return {}
    details: JsonObject = value if isinstance(value, dict) else {"value": value}
    return details if len(orjson.dumps(details)) <= MAX_DETAILS_BYTES else {"truncated": True}
