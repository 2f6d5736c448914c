"""A pod's snapshots of live figures: none in front of a decide, fresh for who is in use, bounded."""

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from router.domain.decide.figures import NO_FIGURES, Live, Snapshot
from router.errors import StoreUnavailable
from router.telemetry import Telemetry
from router.usecases.sampling.figures import FiguresSettings, LiveFigures


class MemoryFigures:
    """Figures in memory; `away`: it does not answer."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.reads: list[list[str]] = []
        self.away = False
        self.asked = asyncio.Event()

    async def snapshots(self, tenant_ids: Sequence[str]) -> list[Snapshot]:
        """As the port promises: a new object each time."""
        self.reads.append(list(tenant_ids))
        self.asked.set()
        if self.away:
            raise StoreUnavailable("away")
        live = {b"provider": Live(1, 1, 1, 1)}
        return [Snapshot(self.versions[t], live) if t in self.versions else NO_FIGURES for t in tenant_ids]


class World:
    """Snapshots over figures in memory, with a clock that stands still unless it is told."""

    def __init__(self, **settings: float) -> None:
        self.now = 1000.0
        self.store = MemoryFigures()
        self.telemetry = Telemetry(CollectorRegistry())
        self.figures = LiveFigures(
            self.store,
            self.telemetry,
            FiguresSettings(**settings),  # type: ignore[arg-type]
            clock=lambda: self.now,
        )

    def version(self, tenant: str = "acme") -> int:
        """What a decide of the tenant would see."""
        return self.figures.snapshot(tenant).version


@pytest.fixture
async def world() -> World:
    """A world of its own."""
    return World()


async def test_the_first_decide_waits_for_nothing_and_has_it_read(world: World) -> None:
    """No figures at first; the loop reads them at once, not at the next turn."""
    world.store.versions["acme"] = 5
    running = asyncio.create_task(world.figures.run())
    assert world.figures.snapshot("acme") is NO_FIGURES
    await asyncio.wait_for(world.store.asked.wait(), 5)
    assert world.version() == 5
    running.cancel()


@pytest.mark.parametrize("away", [False, True])
async def test_a_first_read_is_announced_until_it_ends(world: World, away: bool) -> None:
    """From the first use on; read or not. Later uses find none, however often it is read again."""
    world.store.versions["acme"], world.store.away = 5, away
    assert "acme" not in world.figures.first_reads
    world.version()
    first_read = world.figures.first_reads["acme"]
    world.version()
    assert world.figures.first_reads == {"acme": first_read}
    await world.figures.read_new()
    assert first_read.done()
    assert world.version() == (0 if away else 5)
    await world.figures.refresh()
    assert world.figures.first_reads == {}


async def test_a_tenant_that_was_dropped_is_read_first_again(world: World) -> None:
    """A tenant that comes back after five minutes."""
    world.version()
    await world.figures.read_new()
    world.now += 301
    await world.figures.refresh()
    world.now += 301
    await world.figures.refresh()
    world.store.versions["acme"] = 7
    assert world.version() == 0
    assert "acme" in world.figures.first_reads
    await world.figures.read_new()
    assert world.version() == 7


async def test_everything_in_use_is_read_again(world: World) -> None:
    """A refresh reads every tenant that is held, and a new version takes the place of the old one."""
    world.store.versions = {"acme": 1, "beta": 1}
    world.version(), world.version("beta")
    await world.figures.refresh()
    assert (world.version(), world.version("beta")) == (1, 1)
    world.store.versions["acme"] = 2
    await world.figures.refresh()
    assert (world.version(), world.version("beta")) == (2, 1)


async def test_an_unchanged_version_is_the_same_object(world: World) -> None:
    """Orders are remembered by the snapshot, so that it must not change without need."""
    world.store.versions["acme"] = 1
    world.version()
    await world.figures.refresh()
    before = world.figures.snapshot("acme")
    await world.figures.refresh()
    assert world.figures.snapshot("acme") is before


async def test_figures_that_have_ended_are_gone(world: World) -> None:
    """When the store holds none any more, the policy's count again."""
    world.store.versions["acme"] = 1
    world.version()
    await world.figures.refresh()
    del world.store.versions["acme"]
    await world.figures.refresh()
    assert world.version() == 0


async def test_who_is_not_used_is_not_read(world: World) -> None:
    """After five minutes without a request a tenant is dropped; one in use stays."""
    world.version(), world.version("idle")
    await world.figures.refresh()
    for _ in range(10):
        world.now += 31
        world.version()
        await world.figures.refresh()
    assert world.store.reads[-1] == ["acme"]


async def test_held_tenants_are_bounded() -> None:
    """Beyond the bound those go that were used longest ago."""
    world = World(max_tenants=2)
    for tenant in ("a", "b"):
        world.version(tenant)
    await world.figures.refresh()
    world.version("a"), world.version("c")
    await world.figures.refresh()
    assert sorted(world.store.reads[-1]) == ["a", "c"]


async def test_a_store_that_is_away_leaves_the_last_figures(world: World) -> None:
    """Counted, and tried again."""
    world.store.versions["acme"] = 1
    world.version()
    await world.figures.refresh()
    world.store.away = True
    await world.figures.refresh()
    assert world.version() == 1
    assert world.telemetry.registry.get_sample_value("router_figures_failures_total") == 1
