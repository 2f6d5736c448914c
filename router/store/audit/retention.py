"""`ports.audit.AuditRetention` on Redis: which audit logs are due, cutting them, and how far the export has read."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from router.ports.audit import Trimmed
from router.store.keys import Keys
from router.store.scripts.load import Script, load
from router.store.servers.nodes import Nodes
from router.store.tasks.store import Claims, claim_script

TRIMMED, GONE = 0, 1
MAX_CUT = 10_000


class RetentionBounds(Struct, frozen=True):
    """Age and length bounds of a log, and the life time of a log without new entries."""

    age_ms: int = 7 * 86_400_000
    max_len: int = 100_000
    ttl_ms: int = 8 * 86_400_000


def trim_script(**options: Any) -> Script:
    """Load lua/trim_audit.lua and check its header against this module's calls; options as in `scripts.load`."""
    return load(
        "trim_audit",
        keys=("audit", "audit_marks", "retain"),
        argv=("tenant", "age_ms", "max_len", "max_cut", "ttl_ms", "check_ms", "full_ms", "keep_unread"),
        returns={TRIMMED: "trimmed", GONE: "gone"},
        **options,
    )


class RedisRetention:
    """Cuts logs and advances export marks; the port has the promises."""

    def __init__(
        self,
        keys: Keys,
        nodes: Nodes,
        bounds: RetentionBounds,
        *,
        shared_calls: bool = True,
        max_cut: int = MAX_CUT,
        trim: Script | None = None,
    ) -> None:
        self._keys = keys
        self._nodes = nodes
        self._bounds = bounds
        self._max_cut = max_cut
        self._trim = trim or trim_script()
        self._claim = claim_script()
        self._claims = Claims("audit logs")
        self._mark = load(
            "mark_exported",
            keys=("audit_marks",),
            argv=("expected", "exported", "count", "ttl_ms"),
            returns={0: "marked", 1: "changed"},
        )
        # A single node takes all partitions in one call; a Cluster needs one call per partition.
        self._shared = shared_calls
        self._first = 0

    async def register(self, tenant_ids: Sequence[str]) -> None:
        """See `ports.audit.AuditRetention.register`."""
        await self._nodes.gather([("ZADD", self._retain(t), "NX", 0, t) for t in tenant_ids])

    async def claim(self, lease_ms: int, *, maximum: int) -> list[str]:
        """See `ports.audit.AuditRetention.claim`."""
        # Each call starts with another partition, so none waits until the others have nothing due.
        self._first = (self._first + 1) % self._keys.partitions
        dues = [self._keys.retain(p) for p in (*range(self._first, self._keys.partitions), *range(self._first))]
        tenant_ids: list[str] = []
        for group in [dues] if self._shared else [[due] for due in dues]:
            if len(tenant_ids) >= maximum:
                break
            reply = await self._nodes.run(self._claim, group, [lease_ms, maximum - len(tenant_ids), 0])
            tenant_ids += [name.decode() for name in self._claims.taken(group, reply)[0]]
        return tenant_ids

    async def trim(self, tenant_id: str, *, check_ms: int, full_ms: int, keep_unread: bool) -> Trimmed | None:
        """See `ports.audit.AuditRetention.trim`."""
        tenant = self._keys.tenant(tenant_id)
        b = self._bounds
        reply = await self._nodes.run(
            self._trim,
            [tenant.audit, tenant.audit_marks, self._keys.retain(tenant.partition)],
            [tenant_id, b.age_ms, b.max_len, self._max_cut, b.ttl_ms, check_ms, full_ms, int(keep_unread)],
        )
        if reply[0] == GONE:
            return None
        entries, oldest_ms, appended, cut, inside, unread, lost, at_bound = map(int, reply[1:])
        return Trimmed(
            entries=entries,
            oldest_ms=oldest_ms,
            appended=appended,
            cut=cut,
            cut_inside_age=inside,
            unread=unread,
            lost=lost,
            at_bound=at_bound == 1,
        )

    async def exported(self, tenant_id: str) -> str:
        """See `ports.audit.AuditRetention.exported`."""
        entry_id = await self._nodes.call("HGET", self._keys.tenant(tenant_id).audit_marks, "exported")
        return "0-0" if entry_id is None else entry_id.decode()

    async def mark_exported(self, tenant_id: str, *, expected: str, entry_id: str, count: int) -> bool:
        """See `ports.audit.AuditRetention.mark_exported`."""
        key = self._keys.tenant(tenant_id).audit_marks
        reply = await self._nodes.run(self._mark, [key], [expected, entry_id, count, self._bounds.ttl_ms])
        return bool(reply[0] == 0)

    async def due_now(self, tenant_id: str) -> None:
        """See `ports.audit.AuditRetention.due_now`."""
        await self._nodes.call("ZADD", self._retain(tenant_id), "XX", 0, tenant_id)

    def _retain(self, tenant_id: str) -> bytes:
        return self._keys.retain(self._keys.tenant(tenant_id).partition)
