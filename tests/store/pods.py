"""A pod's store side: lanes on a server or Cluster, and its decides as awaitables."""

import asyncio
import os
from secrets import token_hex
from typing import Any, Self
from uuid import uuid4

from router.domain.decide.outcome import Outcome
from router.store.decide.availability import LaneHooks
from router.store.decide.calls import LaneSettings
from router.store.decide.lanes import Lanes
from router.store.decide.rows import RowPacker
from router.store.decisions import RedisDecisions, decide_script
from router.store.keys import Keys
from router.store.scripts.load import Script
from router.store.servers.nodes import Nodes
from tests.store.harness import Ask, policy, request

PLAIN = policy("a", "b")
QUICK = LaneSettings(deadline_ms=60, retry_ms=20)
WAIT_DEADLINES = 4
"""A row waits for at most this many call deadlines, as by default."""


class Pod:
    """Lanes and a decision store over one schema. `up` and `fell` follow what the lanes report."""

    def __init__(
        self, nodes: Nodes, keys: Keys, *, settings: LaneSettings | None = None, script: Script | None = None
    ) -> None:
        self.nodes = nodes
        self.keys = keys
        self.settings = settings or LaneSettings(deadline_ms=1000, retry_ms=20)
        self.up = asyncio.Event()
        self.fell = asyncio.Event()
        self.calls: list[int] = []
        self.hooks = LaneHooks(lambda _name, _s, rows: self.calls.append(rows), lambda: None, self._told)
        self.lanes = Lanes(
            keys,
            nodes,
            RowPacker(keys, os.urandom),
            script or decide_script(),
            self.settings,
            self.hooks,
        )
        self.decisions = RedisDecisions(keys, nodes, self.lanes, wait_ms=WAIT_DEADLINES * self.settings.deadline_ms)

    def _told(self, down: bool, _why: str) -> None:
        (self.fell if down else self.up).set()
        (self.up if down else self.fell).clear()

    def submit(self, ask: Ask, since: float | None = None) -> "asyncio.Future[Outcome]":
        """Queue a row; the future is the caller's, who may cancel it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome, _stamp: bytes) -> None:
            if not future.done():
                future.set_result(outcome)

        self.decisions.decide(ask.request, ask.plan, ask.job, done, since)
        return future

    async def decide(self, *asks: Ask) -> list[Outcome]:
        """All of them in one tick."""
        async with asyncio.timeout(10):
            return list(await asyncio.gather(*(self.submit(a) for a in asks)))

    async def __aenter__(self) -> Self:
        await self.lanes.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.lanes.close()


def fresh_keys() -> Keys:
    """A schema that nobody else uses."""
    return Keys(schema=f"t{token_hex(5)}")


def ask(request_id: str | None = None, *, tenant: str = "acme", **more: Any) -> Ask:
    """A plain request."""
    return Ask(request(tenant, request_id or uuid4().hex, **more), PLAIN)
