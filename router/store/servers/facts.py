"""What the Redis servers say about themselves in INFO. CONFIG is not used: managed services block it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from router.errors import StoreForbidden
from router.store.servers.nodes import Nodes

UNKNOWN_POLICY = (
    "whether Redis may evict counters is unknown, because it does not say its maxmemory-policy: set "
    "ROUTER_REDIS_MAXMEMORY_POLICY to what it is"
)


class Eviction(Struct, frozen=True):
    """Whether the servers keep every key. `problems`: sentences with the remedy; `unknown`: what is not known."""

    problems: tuple[str, ...] = ()
    unknown: str | None = None


class RedisServers:
    """Reads facts about every primary.

    `stated_policy`: the maxmemory-policy that an operator states for servers that do not say theirs. `allow_eviction`:
    any policy will do.
    """

    def __init__(self, nodes: Nodes, *, stated_policy: str | None = None, allow_eviction: bool = False) -> None:
        self._nodes = nodes
        self._stated_policy = stated_policy
        self._allow_eviction = allow_eviction

    async def eviction(self) -> Eviction:
        """Whether a server may evict keys.

        :raises StoreError: Redis did not answer.
        """
        if self._allow_eviction:
            return Eviction()
        policies = {str(info.get("maxmemory_policy") or self._stated_policy or "") for info in await self._memory()}
        evicting = sorted(policies - {"noeviction", ""})
        return Eviction(
            tuple(
                f"maxmemory-policy is {p} and may evict counters: set noeviction, or ROUTER_ALLOW_EVICTION=true"
                for p in evicting
            ),
            UNKNOWN_POLICY if "" in policies else None,
        )

    async def memory_share(self) -> float | None:
        """Used memory as a share of maxmemory, on the fullest node; 0 without a bound. None: Redis does not say.

        :raises StoreError: Redis did not answer.
        """
        shares: list[float] = []
        for info in await self._memory():
            if "used_memory" not in info or "maxmemory" not in info:
                return None
            maximum = float(info["maxmemory"])
            shares.append(float(info["used_memory"]) / maximum if maximum > 0 else 0.0)
        return max(shares, default=None)

    async def _memory(self) -> list[Mapping[str, Any]]:
        """INFO of each primary's memory; one that is empty stands for servers that do not allow INFO."""
        try:
            return await self._nodes.each("INFO", "memory")
        except StoreForbidden:
            return [{}]
