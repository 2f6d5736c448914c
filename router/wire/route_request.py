"""protobuf RouteRequest ⇄ the message shape of the JSON form, so that one set of rules judges both."""

from base64 import b64encode
from collections.abc import Mapping

from router.domain.json import JsonObject, JsonValue
from router.wire.parse import NotJsonError, parse
from router.wire.pb.beamline.flow.v1.flow_pb2 import RouteRequest

CONTENT_TYPE = "application/x-protobuf"
_PREFIXES = (CONTENT_TYPE, "application/protobuf", "application/vnd.google.protobuf")


def is_protobuf(content_type: str | None) -> bool:
    """Whether a Content-Type header announces protobuf."""
    return content_type is not None and content_type.strip().lower().startswith(_PREFIXES)


def to_message_shape(data: bytes, head: Mapping[str, str]) -> JsonObject:
    """The same request as a JSON client would have sent it; empty proto3 strings are absent fields.

    :raises DecodeError: not a RouteRequest.
    """
    route = RouteRequest.FromString(data)
    m = route.message
    message: JsonObject = {
        "message_id": m.message_id or None,
        "message_type": m.message_type or None,
        "payload": payload_value(m.payload),
        "metadata": dict(m.metadata),
        # Fields 2 and 3 are what older encoders set in place of 13 and 12.
        "tenant_id": m.legacy_tenant_id or None,
        "trace_id": m.legacy_trace_id or None,
    }
    return {
        "version": "1",
        "tenant_id": m.tenant_id or None,
        "trace_id": m.trace_id or None,
        "run_id": m.run_id or None,
        "flow_id": m.flow_id or None,
        "step_id": m.step_id or None,
        "idempotency_key": m.idempotency_key or None,
        "policy_id": route.policy_id or None,
        "context": dict(route.context),
        "message": message,
        "push_assignment": head.get("push_assignment"),
    }


def payload_value(payload: bytes) -> JsonValue:
    """JSON when the bytes are JSON, else `{"base64": …}`; no bytes are no payload."""
    if not payload:
        return None
    try:
        return parse(payload)
    except NotJsonError:
        return {"base64": b64encode(payload).decode()}
