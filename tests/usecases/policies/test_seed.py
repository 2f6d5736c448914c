"""Seeding an empty store from a folder, and finding a running store empty."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from router.errors import StoreError
from router.ports.policy_records import Quotas
from router.usecases.policies.folder import read_folder
from router.usecases.policies.seed import Seeder, SeedKeeper, Source
from tests.usecases.fakes.policies import ONE, TWO, HeardSeed, MemoryPolicies

THREE = b'{"providers":[{"name":"c","weight":100}],"version":"1.0"}'


class World:
    """A folder, a store in memory, and a guard."""

    def __init__(self, folder: Path, source: Source = Source.REDIS) -> None:
        self.folder = folder
        self.store = MemoryPolicies()
        self.heard = HeardSeed()
        self.reloaded: list[str] = []
        self.guard = self.pod(source)

    def pod(self, source: Source = Source.REDIS) -> SeedKeeper:
        """Another pod's guard."""
        seeder = Seeder(self.store, partial(read_folder, self.folder), self.heard)
        return SeedKeeper(
            self.store,
            self.store,
            seeder,
            self.heard,
            source=source,
            reload=self.reloaded.append,
            reload_all=lambda: self.reloaded.append("*"),
            interval_s=0.01,
        )

    def file(self, name: str, document: bytes = ONE) -> None:
        """Write a file of the folder."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(document)

    def documents(self, tenant: str = "acme") -> dict[str, bytes]:
        """What the store has."""
        return {k: r.document for k, r in self.store.tenants.get(tenant, {}).items()}


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """A world in which redis wins."""
    return World(tmp_path)


@pytest.fixture
async def files_win(tmp_path: Path) -> World:
    """A world in which files win."""
    return World(tmp_path, Source.FILES)


@pytest.fixture
async def running(world: World) -> AsyncIterator[World]:
    """A world whose guard runs."""
    world.file("acme/default.json")
    await world.guard.check()
    task = asyncio.ensure_future(world.guard.run())
    yield world
    task.cancel()
    await asyncio.wait([task])


async def test_an_empty_store_is_seeded(world: World) -> None:
    """Folders and flat files are both read; what is written is announced."""
    world.file("acme/default.json")
    world.file("acme/other.json", TWO)
    world.file("globex__default.json")
    world.file("README.md", b"not a policy")
    await world.guard.check()
    assert world.documents() == {"default": ONE, "other": TWO}
    assert world.documents("globex") == {"default": ONE}
    assert world.heard.seeds[0].written == ("acme/default.json", "acme/other.json", "globex__default.json")
    assert sorted(world.heard.announced) == [("acme", 1), ("acme", 2), ("globex", 1)]


async def test_a_mounted_config_map(world: World) -> None:
    """Its hidden folders are not read, its links are."""
    world.file("..2026_01/acme__default.json")
    (world.folder / "..data").symlink_to("..2026_01")
    (world.folder / "acme__default.json").symlink_to("..data/acme__default.json")
    await world.guard.check()
    assert world.heard.seeds[0].written == ("acme__default.json",)
    assert world.heard.seeds[0].bad == ()


async def test_what_is_there_is_not_touched(world: World) -> None:
    """A policy that somebody applied before the first pod booted stays."""
    world.file("acme/default.json")
    await world.store.apply("acme", policy_id="default", document=TWO, expect_revision=None)
    await world.guard.check()
    assert world.documents() == {"default": TWO}
    assert world.heard.seeds[0].kept == ("acme/default.json",)


async def test_a_bad_file_does_not_stop_the_others(world: World) -> None:
    """Each bad file is reported with all its problems; the good ones are written."""
    world.file("acme/bad.json", b'{"providers":[{"name":"a b"}],"x":1}')
    world.file("acme/default.json")
    world.file("acme/broken.json", b"{")
    world.file("loose.json")
    world.file("a__b__c.json")
    world.file("acme__default.json")
    world.file("sp ace/default.json")
    await world.guard.check()
    bad = {b.name: len(b.problems) for b in world.heard.seeds[0].bad}
    assert bad == {
        "a__b__c.json": 1,
        "acme/bad.json": 3,
        "acme/broken.json": 1,
        "acme__default.json": 1,
        "loose.json": 1,
        "sp ace/default.json": 1,
    }
    assert world.documents() == {"default": ONE}


async def test_a_folder_above_a_quota(world: World) -> None:
    """What is above the quota is reported as a bad file; what is within is written."""
    world.file("acme/one.json")
    world.file("acme/two.json")
    seeder = Seeder(world.store, lambda: read_folder(world.folder), world.heard, Quotas(policies=1))
    report = await seeder.seed()
    assert report.written == ("acme/one.json",)
    assert [b.name for b in report.bad] == ["acme/two.json"]
    assert "at most 1 (ROUTER_QUOTA_POLICIES)" in str(report.bad[0].problems[0])


async def test_a_folder_that_is_not_there(world: World) -> None:
    """It is reported; the pod goes on without a seed."""
    world.folder = world.folder / "missing"
    guard = world.pod()
    await guard.check()
    assert [b.name for b in world.heard.seeds[0].bad] == ["."]
    assert world.store.mark


async def test_a_seeded_store_is_left_alone(world: World) -> None:
    """A second pod, or a second look, writes nothing; nor does a policy that was deleted come back."""
    world.file("acme/default.json")
    await world.guard.check()
    await world.store.delete("acme", policy_id="default", expect_revision=None)
    await world.guard.check()
    await world.pod().check()
    assert world.documents() == {}


async def test_a_seed_that_broke_off_is_gone_on_with(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that lost the store halfway leaves no mark; another pod writes the rest."""
    world.file("acme/default.json")
    world.file("acme/other.json", TWO)
    apply = world.store.apply

    async def once(*args: str, **how: object) -> int:
        revision: int = await apply(*args, **how)  # type: ignore[arg-type]
        world.store.away = True
        return revision

    monkeypatch.setattr(world.store, "apply", once)
    with pytest.raises(StoreError):
        await world.guard.check()
    monkeypatch.undo()
    world.store.away = False
    await world.pod().check()
    assert world.documents() == {"default": ONE, "other": TWO}
    assert world.heard.reseeds == []


async def test_pods_that_seed_together(world: World) -> None:
    """Ten pods at once: every policy is written once."""
    world.file("acme/default.json")
    world.file("acme/other.json", TWO)
    await asyncio.gather(*[world.pod().check() for _ in range(10)])
    assert world.store.writes == 2


async def test_a_running_store_that_is_found_empty(running: World) -> None:
    """It is seeded again without being asked, reported, and everything cached is read again."""
    running.heard.told.clear()
    running.store.flush()
    await asyncio.wait_for(running.heard.told.wait(), 5)
    assert running.documents() == {"default": ONE}
    assert len(running.heard.reseeds) == 1
    assert running.reloaded == ["*"]


async def test_a_suspect_wakes_the_guard(world: World) -> None:
    """A row without a head does not wait for the next look; the tenant is read again once the store is in order."""
    world.file("acme/default.json")
    await world.guard.check()
    world.guard._interval_s = 3600
    world.heard.told.clear()
    task = asyncio.ensure_future(world.guard.run())
    world.store.flush()
    world.guard.suspect("acme")
    await asyncio.wait_for(world.heard.told.wait(), 5)
    task.cancel()
    await asyncio.wait([task])
    assert world.reloaded == ["*", "acme"]


async def test_another_pod_seeded_it(world: World) -> None:
    """When somebody else was first, the suspect tenant is read again all the same."""
    world.file("acme/default.json")
    await world.guard.check()
    world.store.flush()
    await world.pod().check()
    world.guard.suspect("acme")
    await world.guard.check()
    assert world.reloaded == ["acme"]


async def test_a_store_that_is_away_is_waited_for(running: World) -> None:
    """Reported, not fatal; suspects are not forgotten."""
    running.heard.told.clear()
    running.store.away = True
    running.guard.suspect("acme")
    await asyncio.wait_for(running.heard.told.wait(), 5)
    assert running.heard.outages[0] == "away"
    running.store.away = False
    await running.guard.check()
    assert running.reloaded == ["acme"]


async def test_redis_wins(world: World) -> None:
    """A changed file changes nothing in a store that is seeded."""
    world.file("acme/default.json")
    await world.guard.check()
    world.file("acme/default.json", TWO)
    await world.guard.check()
    assert world.documents() == {"default": ONE}


async def test_files_win_at_boot(files_win: World) -> None:
    """Whatever differs is overwritten; what has no file stays."""
    await files_win.store.apply("acme", policy_id="default", document=TWO, expect_revision=None)
    await files_win.store.apply("acme", policy_id="own", document=TWO, expect_revision=None)
    await files_win.store.mark_seeded()
    files_win.store.meta = True
    files_win.file("acme/default.json")
    await files_win.guard.check()
    assert files_win.documents() == {"default": ONE, "own": TWO}


async def test_files_win_when_they_change(files_win: World) -> None:
    """A changed file is written; what was applied by hand to another policy stays till its own file changes."""
    files_win.file("acme/default.json")
    files_win.file("acme/other.json")
    await files_win.guard.check()
    await files_win.store.apply("acme", policy_id="other", document=TWO, expect_revision=None)
    files_win.file("acme/default.json", TWO)
    await files_win.guard.check()
    assert files_win.documents() == {"default": TWO, "other": TWO}


async def test_pods_that_enforce_together(files_win: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that read the store before another one wrote the same file writes no further revision of it; what somebody
    else wrote in between is overwritten all the same."""
    files_win.file("acme/default.json")
    files_win.file("acme/other.json")
    await files_win.guard.check()
    files_win.file("acme/default.json", TWO)
    files_win.file("acme/other.json", TWO)
    records = files_win.store.records

    async def raced(tenant_id: str) -> object:
        found = await records(tenant_id)
        monkeypatch.setattr(files_win.store, "records", records)
        await files_win.store.apply("acme", policy_id="default", document=TWO, expect_revision=None)
        await files_win.store.apply("acme", policy_id="other", document=THREE, expect_revision=None)
        return found

    monkeypatch.setattr(files_win.store, "records", raced)
    await files_win.guard.check()
    assert files_win.documents() == {"default": TWO, "other": TWO}
    assert files_win.store.writes == 5


async def test_files_that_say_the_same_write_nothing(files_win: World) -> None:
    """Another spelling of the same policy is no change."""
    files_win.file("acme/default.json")
    await files_win.guard.check()
    files_win.file("acme/default.json", b'{ "weights": {"a": 100} }')
    await files_win.guard.check()
    assert files_win.store.writes == 1
