"""The tenant of a request, read without decoding the rest: for a pod that is about to refuse the request."""

from collections.abc import Mapping

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct

from router.wire.headers import with_lower_names
from router.wire.pb.beamline.flow.v1.flow_pb2 import RouteRequest


class _Message(Struct):
    tenant_id: str | None = None


class _Body(Struct):
    tenant_id: str | None = None
    message: _Message | None = None


_decode = msgspec.json.Decoder(_Body).decode


def peek_tenant(
    data: bytes, headers: Mapping[str, str] | None, subject_tenant: str | None, *, protobuf: bool
) -> str | None:
    """Return the tenant that subject, else header, else body names; None: unreadable, or nothing names one.

    It is not checked: a full decode may refuse the request, or repair its body and find a tenant.
    """
    if subject_tenant is not None:
        return subject_tenant
    if headers and (tenant := with_lower_names(headers).get("tenant_id")) is not None:
        return tenant
    try:
        if protobuf:
            message = RouteRequest.FromString(data).message
            return message.tenant_id or message.legacy_tenant_id or None
        body = _decode(data)
    except (msgspec.MsgspecError, DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body.tenant_id or (body.message.tenant_id if body.message is not None else None)
