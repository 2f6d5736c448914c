"""The names of all tenants, by a scan over the key space: for operators, never for a request.

A scan of a large key space keeps a node busy for a while, in small steps. So its result is reused for ten times as long
as the scan took. Pollers then keep Redis busy for at most a tenth of the time, and the names of a small store are
current.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from router.store.keys import Keys
from router.store.servers.nodes import Nodes

MAX_TENANTS: Final = 10_000
USED_AGAIN: Final = 10
_SCAN = 1000


class TenantNames:
    """Scans for names; one scan at a time. `clock`: monotonic, in s."""

    def __init__(self, keys: Keys, nodes: Nodes, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._nodes = nodes
        self._clock = clock
        self._scanning = asyncio.Lock()
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def of(self, *kinds: str) -> list[str]:
        """Tenants that have a key of one of these kinds, at most 10,000 of each, in the order of `<tenant>/`.

        :raises StoreError: Redis did not answer.
        """
        async with self._scanning:
            names = {name for kind in kinds for name in await self._of(kind)}
        return sorted(names, key=in_order)

    async def _of(self, kind: str) -> frozenset[str]:
        begun = self._clock()
        until, names = self._known.get(kind, (begun, frozenset[str]()))
        if begun < until:
            return names
        prefix = f"{self._keys.schema}:"
        found: set[str] = set()
        for key in await self._nodes.scan(f"{prefix}{{*}}:*:{kind}", _SCAN, MAX_TENANTS):
            parts = key.decode(errors="replace").split(":")
            if len(parts) == 4 and parts[3] == kind:
                found.add(parts[2])
        ended = self._clock()
        self._known[kind] = ended + USED_AGAIN * (ended - begun), frozenset(found)
        return frozenset(found)


def in_order(tenant_id: str) -> str:
    """The sort key of tenants: that of `<tenant>/`."""
    return f"{tenant_id}/"
