"""`ports.audit.UnknownTenantLog` on one Redis stream of the whole fleet. Field r: B 1, msgpack of the record."""

from collections.abc import Sequence

from msgspec import msgpack

from router.domain.audit.records import AuditEntry, UnknownTenant
from router.domain.tasks.task import Action
from router.store.keys import Keys
from router.store.packing import DAMAGE, FORMAT
from router.store.servers.link import Command
from router.store.servers.nodes import Nodes

MAX_KEPT = 10_000
_pack = msgpack.Encoder().encode
_unpack = msgpack.Decoder(UnknownTenant).decode


class RedisUnknownTenants:
    """Writes and reads refusals of unknown tenants; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes, ttl_ms: int) -> None:
        self._key = keys.unknown
        self._nodes = nodes
        self._ttl_ms = ttl_ms

    async def record(self, records: Sequence[UnknownTenant]) -> None:
        """See `ports.audit.UnknownTenantLog.record`."""
        commands: list[Command] = [
            ("XADD", self._key, "MAXLEN", "~", MAX_KEPT, "*", "r", b"%c%b" % (FORMAT, _pack(record)))
            for record in records
        ]
        await self._nodes.gather([*commands, ("PEXPIRE", self._key, self._ttl_ms)])

    async def newest(self, maximum: int) -> list[AuditEntry]:
        """See `ports.audit.UnknownTenantLog.newest`."""
        rows = await self._nodes.call("XREVRANGE", self._key, "+", "-", "COUNT", maximum)
        return [entry for entry_id, fields in rows if (entry := _entry(entry_id.decode(), fields[b"r"])) is not None]


def _entry(entry_id: str, raw: bytes) -> AuditEntry | None:
    """Decode one record. None: it is unreadable, such as one that a newer version has written."""
    try:
        record = _unpack(raw[1:]) if raw[0] == FORMAT else None
    except DAMAGE:
        record = None
    if record is None:
        return None
    return AuditEntry(
        id=entry_id,
        ts_us=int(entry_id.partition("-")[0]) * 1000,
        tenant_id=record.tenant_id,
        action=Action.DECISION_REFUSED.label,
        resource_type="request",
        resource_id=record.request_id,
        user_id=None,
        ip_address=record.ip_address,
        trace_id=record.trace_id,
        details={"request_id": record.request_id, "policy_id": record.policy_id, "times": record.times},
        outcome=record.code,
    )
