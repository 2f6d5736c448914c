"""The features that scripts store as the audit record of an admin act (lua/include/admin_record.lua)."""

from msgspec import msgpack

from router.domain.audit.records import ActFeatures, Actor

KEEP_MS = 8 * 86_400_000
"""The minimum time that the record of an admin act is kept when no setting says otherwise."""

Detail = str | int | bool
_pack = msgpack.Encoder().encode


def packed_act(by: Actor, *, resource_type: str, resource_id: str | None, **details: Detail) -> bytes:
    """The packed features of an act. `details` are plain facts, never a secret."""
    return _pack(
        ActFeatures(
            principal=by.principal,
            role=by.role,
            resource_type=resource_type,
            resource_id=resource_id,
            trace_id=by.trace_id,
            details=details,
        )
    )
