"""Checks of Redis Sentinel: all sentinels answer and agree, and a failover has enough votes and replicas."""

import asyncio

from router.errors import StoreError
from router.selftest.check import NotSeen
from router.store.servers.sentinels import Sentinels


class SentinelChecks:
    """Each method returns what it saw.

    :raises NotSeen: the check failed.
    """

    def __init__(self, sentinels: Sentinels, *, wait_replicas: int) -> None:
        self._sentinels = sentinels
        self._wait_replicas = wait_replicas

    async def agree(self) -> str:
        """Every configured sentinel names the same primary; it is up, and has replicas."""
        addresses = self._sentinels.options.addresses
        found = await asyncio.gather(*map(self._sentinels.view, addresses), return_exceptions=True)
        wrong = [str(f) for f in found if isinstance(f, StoreError)]
        views = [view for view in found if not isinstance(view, BaseException)]
        named = sorted({f"{view.address[0]}:{view.address[1]}" for view in views})
        if len(named) > 1:
            wrong.append(f"they name different primaries: {', '.join(named)}")
        for (host, port), view in zip(addresses, found, strict=True):
            if isinstance(view, BaseException):
                continue
            if down := view.flags & {"s_down", "o_down"}:
                wrong.append(f"sentinel {host}:{port} sees the primary as {' and '.join(sorted(down))}")
            if view.quorum > view.sentinels:
                wrong.append(
                    f"sentinel {host}:{port} knows {view.sentinels} sentinels, and its quorum is {view.quorum}"
                )
        replicas = min((view.replicas for view in views), default=0)
        if views and replicas < max(1, self._wait_replicas):
            wrong.append(f"{replicas} replicas: at least {max(1, self._wait_replicas)} are needed")
        if wrong:
            raise NotSeen("; ".join(wrong))
        note = ""
        if self._wait_replicas >= replicas:
            note = (
                f"; with ROUTER_WAIT_REPLICAS={self._wait_replicas}, a failover refuses requests until the old primary "
                "is back: run one replica more"
            )
        return f"{len(views)} sentinels name {named[0]} with {replicas} known replicas{note}"
