"""Degraded decisions are in the audit log when the store is back, each once, in their order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from secrets import token_hex
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.domain.decide.answers import degraded
from router.domain.decide.decision import Decided
from router.domain.ids import to_text
from router.domain.levers import NO_HEAD
from router.domain.policy.vocabulary import OnStoreError
from router.domain.tasks.task import Move
from router.errors import StoreUnavailable
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.tasks.store import RedisTasks
from router.telemetry import Telemetry
from router.usecases.audit.deferred import DeferredAudit
from tests.store.harness import Ask, policy, request

STORED = policy("a", "b")


class Tasks:
    """`ports.tasks.TaskStore` as far as it is asked: on a real store, which is away when `away` says so, or slow."""

    def __init__(self, inner: RedisTasks) -> None:
        self._inner = inner
        self.away = False
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def move(self, moves: Sequence[Move], *, replicated: bool = True) -> Any:
        """Writes."""
        self.asked.set()
        await self.go_on.wait()
        if self.away:
            raise StoreUnavailable("away")
        return await self._inner.move(moves, replicated=replicated)


class World:
    """What one pod has deferred, and the log it goes to."""

    def __init__(self, nodes: SingleNode) -> None:
        self.keys, self.nodes = Keys(f"t{token_hex(5)}"), nodes
        self.tasks = Tasks(RedisTasks(self.keys, nodes))
        self.registry = CollectorRegistry()
        self.deferred = DeferredAudit(self.tasks, Telemetry(self.registry))  # type: ignore[arg-type]

    def made(self, *names: str) -> None:
        """Degraded decisions on requests of these names."""
        for name in names:
            asked = Ask(request("acme", name), STORED)
            decision_id = to_text(bytes(16))
            found = degraded(asked.request, asked.plan, NO_HEAD, default=OnStoreError.ALLOW, decision_id=decision_id)
            assert isinstance(found, Decided)
            self.deferred.add(asked.request, asked.plan, found)

    async def written(self) -> list[object]:
        """Whose are in the log, oldest first."""
        await self.deferred.drained()
        return [e.details["request_id"] for e in await RedisAudit(self.keys, self.nodes).after("acme", last="0-0")]

    def waiting(self) -> float | None:
        """What the metric says."""
        return self.registry.get_sample_value("router_audit_deferred")


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[World]:
    """A schema of its own."""
    nodes = SingleNode(redis_url)
    yield World(nodes)
    await nodes.close()


async def test_what_could_not_be_written_is_kept(world: World) -> None:
    """The store falls again at once: nothing is lost, and all are written, in order, the next time."""
    world.made("r1", "r2", "r3")
    world.tasks.away = True
    assert await world.written() == []
    assert world.waiting() == 3
    world.tasks.away = False
    assert await world.written() == ["r1", "r2", "r3"]
    assert world.waiting() == 0
    assert await world.written() == ["r1", "r2", "r3"]


@pytest.mark.parametrize("falls", [True, False])
async def test_what_comes_while_the_first_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch, falls: bool
) -> None:
    """At the bound, too: those on their way are not dropped for the newest, nor the newest with those."""
    monkeypatch.setattr("router.usecases.audit.deferred.MAXIMUM", 3)
    world.made("r1", "r2", "r3")
    world.tasks.go_on.clear()
    world.deferred.store_is_back()
    await asyncio.wait_for(world.tasks.asked.wait(), 5)
    world.made("r4", "r5")
    world.tasks.away = falls
    world.tasks.go_on.set()
    if falls:
        assert await world.written() == []
        world.tasks.away = False
    assert await world.written() == ["r1", "r2", "r3", "r4", "r5"]
