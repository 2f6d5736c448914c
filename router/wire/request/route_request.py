"""Conversion of a protobuf RouteRequest to the message shape of the JSON form, so that both follow the same rules."""

from base64 import b64encode
from collections.abc import Mapping

from router.domain.json import JsonObject, JsonValue
from router.wire.parse import NotJsonError, parse_request
from router.wire.pb.beamline.flow.v1.flow_pb2 import RouteRequest
from router.wire.problems import Problems
from router.wire.request.protobuf import parse_protobuf


def to_message_shape(data: bytes, headers: Mapping[str, str], problems: Problems) -> JsonObject:
    """Convert the request to the document that a JSON client would send; empty proto3 strings are absent fields.

    :raises google.protobuf.message.DecodeError: the bytes are not a RouteRequest.
    """
    route = parse_protobuf(RouteRequest, data, problems)
    m = route.message
    message: JsonObject = {
        "message_id": m.message_id or None,
        "message_type": m.message_type or None,
        "payload": payload_value(m.payload, problems),
        "metadata": dict(m.metadata),
        # Older encoders set the fields 2 and 3 instead of 13 and 12.
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
        "push_assignment": headers.get("push_assignment"),
    }


def payload_value(payload: bytes, problems: Problems) -> JsonValue:
    """Decode JSON bytes; other bytes become `{"base64": …}`, and no bytes mean no payload."""
    if not payload:
        return None
    warnings = problems.warnings
    try:
        return parse_request(payload, problems)
    except NotJsonError:
        problems.warnings = warnings
        return {"base64": b64encode(payload).decode()}
