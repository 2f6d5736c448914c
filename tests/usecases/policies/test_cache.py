"""The policy cache: one load a tenant, last good ones kept, bounded."""

import asyncio
import timeit

import pytest

from router.errors import StoreError, StoreUnavailable
from router.ports.policies import LOADING, Cause
from router.usecases.policies.cache import MAX_ABSENT, REFRESHES_AT_ONCE, PolicyCache
from router.usecases.policies.cache_settings import CacheSettings
from router.usecases.policies.size import size_of
from tests.usecases.fakes.policies import ONE, TWO, HeardCache, MemoryPolicies
from tests.usecases.policies.world import World


@pytest.fixture
async def world() -> World:
    """A world of its own."""
    return World()


async def test_first_loading_then_cached(world: World) -> None:
    """An unknown tenant is LOADING; after one load it is answered from memory."""
    await world.apply()
    assert world.cache.get("acme") is LOADING
    await world.cache.load("acme")
    assert (world.provider(), world.store.loads) == ("a", 1)


async def test_callers_at_the_same_time_share_a_load(world: World) -> None:
    """A hundred requests of a tenant that is not cached read the store once."""
    await world.apply()
    found = await asyncio.gather(*[world.cache.load("acme") for _ in range(100)])
    assert world.store.loads == 1
    assert all(f is found[0] for f in found)


async def test_a_caller_that_gives_up_does_not_cancel_the_others(world: World) -> None:
    """The load goes on for those who still wait."""
    await world.apply()
    world.store.gate.clear()
    impatient = asyncio.ensure_future(world.cache.load("acme"))
    patient = asyncio.ensure_future(world.cache.load("acme"))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    world.store.gate.set()
    assert await patient is not None


async def test_a_tenant_without_policies_is_remembered_briefly(world: World) -> None:
    """None for as long as the setting says, then it is asked for again."""
    assert await world.cache.load("nobody") is None
    assert world.cache.get("nobody") is None
    world.now += CacheSettings().absent_ttl_s
    assert world.cache.get("nobody") is LOADING


async def test_what_is_cached_says_only_briefly_what_is_not_there(world: World) -> None:
    """A name that it lacks is looked for again as seldom as a tenant that has none; a load that fails counts, too."""
    await world.cached()
    assert not world.cache.may_be_outdated("acme")
    world.now += CacheSettings().negative_ttl_s
    assert world.cache.may_be_outdated("acme")
    world.store.broken = StoreUnavailable("away")
    with pytest.raises(StoreError):
        await world.cache.load("acme")
    assert not world.cache.may_be_outdated("acme")
    assert not world.cache.may_be_outdated("nobody")


@pytest.mark.heavy
async def test_names_that_do_not_exist_are_bounded(world: World) -> None:
    """Inventing tenants does not make the pod remember them all."""
    for n in range(MAX_ABSENT + 10):
        await world.cache.load(f"t{n}")
    assert world.cache.get("t0") is LOADING
    assert world.cache.get(f"t{MAX_ABSENT}") is None


async def test_another_stamp_reloads_once(world: World) -> None:
    """Rows with a new stamp start one reload; until it is there the old policies serve."""
    await world.cached()
    await world.apply(document=TWO)
    stamp = world.store.stamp("acme")
    for _ in range(50):
        world.cache.observe("acme", stamp)
    assert world.provider() == "a"
    await world.cache.settled()
    world.cache.observe("acme", stamp)
    assert (world.provider(), world.store.loads) == ("b", 2)
    assert world.heard.causes[-1] is Cause.STAMP


async def test_the_same_stamp_reloads_nothing(world: World) -> None:
    """Neither does an empty one (the store was not reached), nor one of a tenant that is not cached."""
    await world.cached()
    world.cache.observe("acme", world.store.stamp("acme"))
    world.cache.observe("acme", b"")
    world.cache.observe("other", b"\0\0\0\1abcd")
    await world.cache.settled()
    assert world.store.loads == 1


async def test_a_stamp_that_a_reload_does_not_find_is_not_chased(world: World) -> None:
    """Late rows with an old stamp cause one reload, not one each."""
    await world.cached()
    for _ in range(5):
        world.cache.observe("acme", b"\0\0\0\0old!")
        await world.cache.settled()
    assert world.store.loads == 2


async def test_a_change_during_a_load_is_not_missed(world: World) -> None:
    """A load read before a change of which a row tells meanwhile: it is read again at once, not after a second."""
    await world.cached()
    world.store.gate.clear()
    world.cache.announced("acme")
    await asyncio.sleep(0)
    await world.apply(document=TWO)
    world.cache.observe("acme", world.store.stamp("acme"))
    world.store.gate.set()
    await world.cache.settled()
    assert (world.provider(), world.store.loads) == ("b", 3)


async def test_skew_is_known_from_the_row_to_the_load(world: World) -> None:
    """A tenant is behind from the row that tells until the load; the oldest one's age is told."""
    for tenant in ("acme", "globex"):
        await world.cached(tenant)
    world.store.away = True
    world.cache.observe("acme", b"\0\0\0\2new!")
    await world.cache.settled()
    world.now += 3
    world.cache.observe("globex", b"\0\0\0\2new!")
    await world.cache.settled()
    assert (len(world.cache.skew), world.cache.skew.oldest_s) == (2, 3.0)
    world.store.away = False
    world.now += 2
    await world.cache.load("acme")
    assert (len(world.cache.skew), world.cache.skew.oldest_s) == (1, 2.0)


async def test_a_row_that_agrees_ends_skew(world: World) -> None:
    """A late row with an old stamp does not leave a tenant behind for ever."""
    await world.cached()
    world.store.gate.clear()
    world.cache.observe("acme", b"\0\0\0\0old!")
    assert len(world.cache.skew) == 1
    world.cache.observe("acme", world.store.stamp("acme"))
    assert len(world.cache.skew) == 0
    world.store.gate.set()
    await world.cache.settled()


async def test_announcements_that_may_be_missed_reload_a_few_at_a_time(world: World) -> None:
    """After NATS was away everything is read again, but never more than 16 tenants at once."""
    for n in range(50):
        await world.cached(f"t{n}")
    before = world.store.loads
    world.store.gate.clear()
    world.cache.announced_all()
    await asyncio.sleep(0)
    assert world.store.loads - before == REFRESHES_AT_ONCE
    world.store.gate.set()
    await world.cache.settled()
    assert world.store.loads - before == 50


async def test_a_missing_head_is_reported_and_the_last_good_kept(world: World) -> None:
    """An empty stamp for a tenant with policies: the store may be empty; somebody is told, nothing is dropped."""
    await world.cached()
    world.store.flush()
    world.cache.observe("acme", world.store.stamp("acme"))
    await world.cache.settled()
    assert world.heard.missing == ["acme"]
    assert world.provider() == "a"


async def test_an_announcement_reloads(world: World) -> None:
    """A cached tenant that is announced is read again."""
    await world.cached()
    await world.apply(document=TWO)
    world.cache.announced("acme")
    await world.cache.settled()
    assert world.provider() == "b"


async def test_an_announcement_during_a_load_is_not_lost(world: World) -> None:
    """The load in flight may have read what was there before, so there is another."""
    await world.apply()
    world.store.gate.clear()
    load = asyncio.ensure_future(world.cache.load("acme"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.apply(document=TWO)
    world.cache.announced("acme")
    world.store.gate.set()
    await load
    await world.cache.settled()
    assert world.provider() == "b"


async def test_an_announcement_ends_not_found(world: World) -> None:
    """A tenant that had no policies is asked for again as soon as it is announced."""
    await world.cache.load("acme")
    await world.apply()
    world.cache.announced("acme")
    assert world.cache.get("acme") is LOADING


async def test_an_announcement_of_a_stranger_costs_nothing(world: World) -> None:
    """A pod does not load tenants that it does not serve."""
    world.cache.announced("acme")
    await world.cache.settled()
    assert world.store.loads == 0


async def test_the_last_policy_deleted(world: World) -> None:
    """A reload that finds nothing drops the tenant."""
    await world.cached()
    await world.store.delete("acme", policy_id="default", expect_revision=None)
    world.cache.observe("acme", world.store.stamp("acme"))
    await world.cache.settled()
    assert world.cache.get("acme") is None


async def test_past_its_ttl_a_tenant_is_refreshed(world: World) -> None:
    """At the TTL it is read again in the background, and answered meanwhile."""
    await world.cached()
    await world.apply(document=TWO)
    world.now += CacheSettings().ttl_s - 1
    world.cache.refresh_due()
    await world.cache.settled()
    assert world.store.loads == 1
    world.now += 1
    world.cache.refresh_due()
    assert world.provider() == "a"
    await world.cache.settled()
    assert (world.provider(), world.heard.causes[-1]) == ("b", Cause.EXPIRED)


async def test_the_last_good_ones_outlive_the_store(world: World) -> None:
    """While the store is away, also past the TTL, cached policies serve; when it is back they are refreshed."""
    await world.cached()
    await world.apply(document=TWO)
    world.store.away = True
    for _ in range(3):
        world.now += 10 * CacheSettings().ttl_s
        world.cache.refresh_due()
        await world.cache.settled()
    assert world.provider() == "a"
    assert len(world.heard.failures) == 3
    world.store.away = False
    world.now += CacheSettings().retry_s
    world.cache.refresh_due()
    await world.cache.settled()
    assert world.provider() == "b"


async def test_a_store_that_is_away_is_not_hammered(world: World) -> None:
    """After a failed reload the next one waits."""
    await world.cached()
    world.store.away = True
    for _ in range(20):
        world.cache.observe("acme", b"\0\0\0\2abcd")
        await world.cache.settled()
        world.cache.refresh_due()
    assert world.store.loads == 2


async def test_an_unknown_tenant_while_the_store_is_away(world: World) -> None:
    """Whoever loads is told, and nothing is remembered: neither that there are none."""
    world.store.away = True
    with pytest.raises(StoreError):
        await world.cache.load("acme")
    assert world.cache.get("acme") is LOADING


async def test_a_bug_in_the_store_keeps_the_last_good(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected fault of a background load is logged, and the cached policies serve on."""
    await world.cached()
    world.store.broken = ValueError("a bug")
    world.cache.announced("acme")
    await world.cache.settled()
    await asyncio.sleep(0)
    assert world.provider() == "a"
    assert "a bug" in caplog.text


async def test_a_policy_of_a_newer_language_keeps_its_last_content() -> None:
    """During a roll: what this pod cannot read any more is answered by what it had; new ones are taken."""
    store = MemoryPolicies()
    left_out: set[str] = set()
    cache = PolicyCache(store, HeardCache(), clock=lambda: 0.0, unreadable=lambda _: frozenset(left_out))
    await store.apply("acme", policy_id="default", document=ONE, expect_revision=None)
    await cache.load("acme")
    await store.delete("acme", policy_id="default", expect_revision=None)
    await store.apply("acme", policy_id="other", document=TWO, expect_revision=None)
    left_out.add("default")
    found = await cache.load("acme")
    assert found is not None
    assert {k: p.policy.providers[0].name for k, p in found.policies.items()} == {"default": "a", "other": "b"}
    left_out.clear()
    found = await cache.load("acme")
    assert found is not None
    assert list(found.policies) == ["other"]


async def test_memory_is_bounded() -> None:
    """Above the bound the least recently used go; those in use stay."""
    world = World()
    await world.cached("t0")
    one = world.cache.size_bytes
    world = World(CacheSettings(max_bytes=5 * one))
    for n in range(20):
        await world.cached(f"t{n}")
        assert world.provider("t0") == "a"
        assert world.cache.size_bytes <= 5 * one
    assert world.cache.tenants >= 4
    assert world.cache.get("t1") is LOADING


async def test_the_newest_stays_even_when_it_is_too_large() -> None:
    """One tenant above the bound is still served."""
    world = World(CacheSettings(max_bytes=1))
    await world.cached("big")
    await world.cached("bigger")
    assert world.cache.get("big") is LOADING
    assert world.provider("bigger") == "a"


async def test_the_size_counts_documents(world: World) -> None:
    """A tenant with more policies is estimated larger, and the report has the sum."""
    await world.cached()
    small = world.cache.size_bytes
    await world.store.apply("acme", policy_id="other", document=TWO, expect_revision=None)
    found = await world.cache.load("acme")
    assert found is not None
    assert world.cache.size_bytes == size_of(found) > small
    assert world.heard.revisions[-1] == ("acme", 2)


async def test_run_refreshes() -> None:
    """The background task does what refresh_due does."""
    world = World(CacheSettings(tick_s=0.001))
    await world.cached()
    world.now += CacheSettings().ttl_s
    task = asyncio.ensure_future(world.cache.run())
    async with asyncio.timeout(5):
        while world.store.loads < 2:  # noqa: ASYNC110 - the store in memory has no event for it
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert world.store.loads == 2


async def test_a_hit_is_cheap(world: World) -> None:
    """A hit and its observation are dictionary look-ups: far below what a decision costs."""
    await world.cached()
    cache, stamp = world.cache, world.store.stamp("acme")

    def hit() -> None:
        cache.get("acme")
        cache.observe("acme", stamp)

    best = min(timeit.repeat(hit, number=20_000, repeat=5))
    assert best / 20_000 < 3e-6


async def test_an_unknown_tenant_is_answered_without_a_task(world: World) -> None:
    """As long as it is remembered: neither load nor task."""
    await world.cache.load("nobody")
    before = asyncio.all_tasks()
    assert [world.cache.get("nobody") for _ in range(5)] == [None] * 5
    assert (asyncio.all_tasks(), world.store.loads) == (before, 1)
