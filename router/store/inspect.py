"""`ports.Inspector` on Redis: reads packed states for people. It changes nothing and runs no script."""

from struct import Struct as Layout

from router.domain.view import BreakerState, BreakerView
from router.store.keys import Keys
from router.store.nodes import Nodes
from router.store.packing import FORMAT, FormatError

LIMIT_BYTES = 132
MOST_TENANTS = 10_000

# The head of a breaker (lua/include/breaker.lua); rate ring and probes follow.
_BREAKER = Layout(">8sBddIBdId80sB")
_PROBE_BYTES = 16
_STATES = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)
_SCAN = 1000


class RedisInspector:
    """Looks; see the port for the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    async def breakers(self, tenant_id: str | None = None) -> list[BreakerView]:
        """See `ports.Inspector.breakers`."""
        tenants = await self._tenants() if tenant_id is None else [tenant_id]
        raws = await self._nodes.gather([("GET", self._keys.tenant(t).state) for t in tenants])
        return [view for tenant, raw in zip(tenants, raws, strict=True) if raw for view in breakers_in(tenant, raw)]

    async def _tenants(self) -> list[str]:
        """Tenants that have a state, at most 10,000; in steps, so that no node is held up."""
        prefix = f"{self._keys.schema}:"
        found: set[str] = set()
        for key in await self._nodes.scan(f"{prefix}{{*}}:*:s", _SCAN, MOST_TENANTS):
            parts = key.decode(errors="replace").split(":")
            if len(parts) == 4 and parts[3] == "s":
                found.add(parts[2])
        return sorted(found)


def breakers_in(tenant_id: str, raw: bytes) -> list[BreakerView]:
    """The breakers of a tenant's packed state.

    :raises FormatError: not a format that this version reads.
    """
    if raw[0] != FORMAT:
        raise FormatError(f"state of format {raw[0]}")
    at = 2 + raw[1] * LIMIT_BYTES
    views: list[BreakerView] = []
    while at < len(raw):
        entry, state, opened, until, failures, _, _, _, _, _, probes = _BREAKER.unpack_from(raw, at)
        views.append(BreakerView(tenant_id, entry, _STATES[state], int(opened), int(until), failures))
        at += _BREAKER.size + probes * _PROBE_BYTES
    return views
