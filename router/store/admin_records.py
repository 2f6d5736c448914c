"""What the scripts need to record an admin act (lua/include/admin_record.lua)."""

from msgspec import msgpack

from router.domain.audit import ActFeatures, Actor

KEEP_MS = 8 * 86_400_000
"""How long the record of an admin act is kept at least, where no setting says otherwise."""

Detail = str | int | bool
_pack = msgpack.Encoder().encode


def packed_act(by: Actor, resource_type: str, resource_id: str | None, **details: Detail) -> bytes:
    """The features of an act by somebody, as its record stores them. `details` are plain facts, never a secret."""
    return _pack(ActFeatures(by.principal, by.role, resource_type, resource_id, by.trace_id, details))
