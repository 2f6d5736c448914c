"""`ports.tenants.LimitUsageStore` on Redis: script calls of one tenant, or of up to 16 tenants with 128 counters."""

from collections.abc import Iterator, Sequence
from struct import Struct as Binary
from typing import Any

from router.domain.decide.candidates import Charge
from router.domain.policy.limit_usage import Counter, LimitUsage
from router.domain.policy.model import provider_entry
from router.store.decide.row_facts import charged_key
from router.store.decide.row_parts import charge_kind, limit_part
from router.store.keys import Keys, TenantKeys
from router.store.scripts import layouts
from router.store.scripts.load import Script, load
from router.store.servers.nodes import Nodes

MAX_TENANTS, MAX_COUNTERS = 16, 128
_ROW = layouts.MEASURE_ROW.head
_COUNTER = layouts.COUNTER.head
_BREAKERS = layouts.MEASURED.head
_DOUBLE = Binary(">d")
_NO_ENTRY = bytes(8)

TenantCounters = tuple[str, tuple[Counter, ...]]


def measure_script(**options: Any) -> Script:
    """Load lua/measure.lua and check its header against this module's calls; options as in `scripts.load`."""
    return load(
        "measure",
        keys=("head", "state", "state_policy", "state_provider", "lease", "log"),
        argv=("row",),
        returns={0: "measured"},
        **options,
    )


class RedisLimitUsage:
    """Reads limit usage; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes, *, shared_calls: bool = True, script: Script | None = None) -> None:
        self._keys = keys
        self._nodes = nodes
        self._script = script or measure_script()
        # A single node takes all partitions in one call; a Cluster needs one call per partition.
        self._shared = shared_calls

    async def measure(self, tenants: Sequence[TenantCounters]) -> list[LimitUsage | None]:
        """See `ports.tenants.LimitUsageStore.measure`."""
        usage_by_tenant: dict[str, LimitUsage | None] = {}
        for group in self._calls(tenants):
            index: dict[bytes, int] = {}
            rows = [self._row(index, tenant_id, counters) for tenant_id, counters in group]
            reply = await self._nodes.run(self._script, list(index), rows)
            usage_by_tenant |= {
                tenant_id: _limit_usage(raw) for (tenant_id, _), raw in zip(group, reply[1:], strict=True)
            }
        return [usage_by_tenant[tenant_id] for tenant_id, _ in tenants]

    def _calls(self, tenants: Sequence[TenantCounters]) -> Iterator[list[TenantCounters]]:
        """Split tenants into calls that are small enough not to block a node."""
        group: list[TenantCounters] = []
        size, destination = 0, 0
        for tenant in sorted(tenants, key=self._destination):
            size += len(tenant[1])
            if group and (self._destination(tenant) != destination or len(group) >= MAX_TENANTS or size > MAX_COUNTERS):
                yield group
                group, size = [], len(tenant[1])
            destination = self._destination(tenant)
            group.append(tenant)
        if group:
            yield group

    def _destination(self, tenant: TenantCounters) -> int:
        """Group tenants by the node or partition that a call goes to."""
        return 0 if self._shared else self._keys.tenant(tenant[0]).partition

    def _row(self, index: dict[bytes, int], tenant_id: str, counters: tuple[Counter, ...]) -> bytes:
        keys = self._keys.tenant(tenant_id)
        parts = [_ROW.pack(_at(index, keys.head), _at(index, keys.state), len(counters))]
        for c in counters:
            k = _at(index, _key(keys, c))
            kind = layouts.KIND_CONCURRENCY if c.limit is None else charge_kind(c.limit)
            if c.limit is None or kind == layouts.KIND_CONCURRENCY:
                parts.append(_COUNTER.pack(k, layouts.KIND_CONCURRENCY, _NO_ENTRY, 0))
            else:
                parts.append(_COUNTER.pack(k, kind, c.limit.entry, c.limit.window_ms))
        return b"".join(parts)


def _at(index: dict[bytes, int], key: bytes) -> int:
    """The index of a key in the call."""
    return index.setdefault(key, len(index) + 1)


def _key(keys: TenantKeys, c: Counter) -> bytes:
    if c.limit is None:
        return keys.lease(provider_entry(c.owner))
    return keys.state if limit_part(c.limit).of_tenant else charged_key(keys, Charge(c.limit, c.owner, 0))


def _limit_usage(raw: bytes) -> LimitUsage | None:
    if not raw:
        return None
    opened, half_open, forced = _BREAKERS.unpack_from(raw)
    used = tuple(units for (units,) in _DOUBLE.iter_unpack(raw[_BREAKERS.size :]))
    return LimitUsage(open=opened, half_open=half_open, forced=forced, used=used)
