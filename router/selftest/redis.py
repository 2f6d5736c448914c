"""Checks of Redis: version, eviction, persistence, clock."""

import time
from collections.abc import Mapping
from typing import Any

from router.errors import StoreForbidden
from router.selftest.check import NotChecked, NotSeen
from router.store.servers.facts import RedisServers
from router.store.servers.nodes import Nodes

MIN_MAJOR = 7
CLOCK_S = 1.0


class RedisChecks:
    """Each method returns what it saw.

    :raises NotSeen: the check failed.
    :raises NotChecked: Redis does not allow the check.
    :raises StoreError: Redis did not answer.
    """

    def __init__(self, nodes: Nodes, servers: RedisServers, *, allow_volatile: bool) -> None:
        self._nodes = nodes
        self._servers = servers
        self._allow_volatile = allow_volatile

    async def version(self) -> str:
        """Every primary is new enough for `#!lua` scripts."""
        servers = await self._info("server")
        old = [s["redis_version"] for s in servers if int(str(s["redis_version"]).split(".")[0]) < MIN_MAJOR]
        if old:
            raise NotSeen(f"Redis {', '.join(map(str, old))}: at least {MIN_MAJOR}.0 is needed")
        return ", ".join(sorted({_name(s) for s in servers}))

    async def eviction(self) -> str:
        """Redis evicts nothing: an evicted key could be a counter, a pin or a stored answer."""
        eviction = await self._servers.eviction()
        if eviction.problems:
            raise NotSeen("; ".join(eviction.problems))
        if eviction.unknown is not None:
            raise NotChecked(eviction.unknown)
        share = await self._servers.memory_share()
        return f"no eviction; {share:.0%} of maxmemory in use" if share else "no eviction; no maxmemory"

    async def persistence(self) -> str:
        """Acknowledged writes survive a restart of Redis."""
        ways: set[str] = set()
        for info in await self._info("persistence"):
            if "aof_enabled" not in info:
                raise NotChecked("INFO does not say whether the append-only file is on: see your provider's settings")
            if int(info.get("aof_enabled", 0)):
                if info.get("aof_last_write_status", "ok") != "ok":
                    raise NotSeen("the append-only file cannot be written; see the log of Redis")
                ways.add("append-only file")
            elif self._allow_volatile:
                ways.add("none, as allowed")
            else:
                raise NotSeen(
                    "appendonly is off: a restart of Redis loses limits, pins and answers; set appendonly yes"
                )
        return " and ".join(sorted(ways))

    async def _info(self, section: str) -> list[Mapping[str, Any]]:
        try:
            return await self._nodes.each("INFO", section)
        except StoreForbidden as refusal:
            raise NotChecked(str(refusal)) from refusal

    async def clock(self) -> str:
        """Deadlines in work items are Redis time; workers compare them with their own clock."""
        apart = 0.0
        for reply in await self._nodes.each("TIME"):
            seconds, microseconds = (int(part) for part in reply)
            apart = max(apart, abs(seconds + microseconds / 1e6 - time.time()), key=abs)
        if apart > CLOCK_S:
            raise NotSeen(f"the clock of Redis and the clock here are {apart:.1f} s apart: run NTP on both")
        return f"{apart * 1000:.0f} ms apart from here"


def _name(info: Mapping[str, Any]) -> str:
    valkey = info.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
