"""Loads that requests ask for: 64 at once, 2,048 further names in order, refused beyond. Reloads do not wait."""

import asyncio

import pytest

from router.errors import LoadsFull, StoreError
from router.ports.policies import Cause
from router.usecases.policies.cache import REFRESHES_AT_ONCE
from router.usecases.policies.cache_settings import CacheSettings
from router.usecases.policies.loads import LOADS_AT_ONCE, LOADS_WAITING
from tests.usecases.fakes.policies import TWO
from tests.usecases.policies.world import World


@pytest.fixture
async def world() -> World:
    """A store that answers no load until its gate is opened."""
    world = World()
    world.store.gate.clear()
    return world


async def test_so_many_loads_run_and_so_many_names_wait(world: World) -> None:
    """Then `LoadsFull`; when the store answers, everybody has an answer, and others may ask."""
    loads = [world.cache.begin_load(f"nobody-{n}") for n in range(LOADS_AT_ONCE + LOADS_WAITING)]
    with pytest.raises(LoadsFull):
        world.cache.begin_load("one too many")
    await asyncio.sleep(0)
    assert (world.store.loads, world.cache.loads_waiting) == (LOADS_AT_ONCE, LOADS_WAITING)
    world.store.gate.set()
    assert await asyncio.gather(*loads) == [None] * len(loads)
    assert world.cache.loads_waiting == 0
    assert await world.cache.load("one too many") is None


async def test_names_wait_in_order(world: World) -> None:
    """The order of their first request."""
    ended: list[int] = []
    for n in range(LOADS_AT_ONCE + 20):
        world.cache.begin_load(f"nobody-{n}").add_done_callback(lambda _, n=n: ended.append(n))  # type: ignore[misc]
    world.store.gate.set()
    await world.cache.settled()
    await asyncio.sleep(0)
    assert ended == sorted(ended)
    assert len(ended) == LOADS_AT_ONCE + 20


async def test_requests_of_a_waiting_name_share_its_place(world: World) -> None:
    """A name waits once, however many requests it has."""
    for n in range(LOADS_AT_ONCE):
        world.cache.begin_load(f"nobody-{n}")
    first = world.cache.begin_load("acme")
    assert all(world.cache.begin_load("acme") is first for _ in range(100))
    assert world.cache.loads_waiting == 1
    world.store.gate.set()
    await first
    assert world.store.loads == LOADS_AT_ONCE + 1


async def test_reloads_do_not_wait_behind_unknown_names() -> None:
    """A cached tenant's changes come in while the store is busy with invented names."""
    world = World()
    for n in range(3):
        await world.cached(f"t{n}")
        await world.apply(f"t{n}", TWO)
    world.store.gate.clear()
    for n in range(LOADS_AT_ONCE + 10):
        world.cache.begin_load(f"nobody-{n}")
    world.cache.announced("t0")
    world.cache.observe("t1", world.store.stamp("t1"))
    world.now += CacheSettings().ttl_s
    world.cache.refresh_due()
    await asyncio.sleep(0)
    assert world.store.loads == 3 + LOADS_AT_ONCE + 3
    assert world.store.loads - 3 - LOADS_AT_ONCE <= REFRESHES_AT_ONCE
    world.store.gate.set()
    await world.cache.settled()
    assert [world.provider(f"t{n}") for n in range(3)] == ["b"] * 3


async def test_an_announced_tenant_that_waits_is_read_after_it(world: World) -> None:
    """Its load has not begun, so it finds what was announced."""
    for n in range(LOADS_AT_ONCE):
        world.cache.begin_load(f"nobody-{n}")
    load = world.cache.begin_load("acme")
    await world.apply()
    world.cache.announced("acme")
    world.store.gate.set()
    found = await load
    assert found is not None
    assert world.provider() == "a"


@pytest.mark.parametrize("fault", [StoreError("away"), ValueError("a bug")])
async def test_a_load_that_fails_frees_its_place(world: World, fault: Exception) -> None:
    """Its callers get the fault, and those that wait are next."""
    world.store.broken = fault
    loads = [world.cache.begin_load(f"nobody-{n}") for n in range(LOADS_AT_ONCE + 5)]
    world.store.gate.set()
    assert {type(x) for x in await asyncio.gather(*loads, return_exceptions=True)} == {type(fault)}
    world.store.broken = None
    assert await world.cache.load("nobody") is None
    assert world.heard.causes[-1] is Cause.ASKED
