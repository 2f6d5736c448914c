"""lua/measure.lua: counters and breakers as decide sees them, without touching any."""

from pathlib import Path
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.policy.limit_usage import Counter, LimitUsage, counters_of
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, StoredPolicy, TenantPolicies, provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.store.servers.nodes import Nodes, SingleNode
from router.store.tenants import limit_usage as measure
from router.store.tenants.limit_usage import RedisLimitUsage, measure_script
from tests.servers import ValkeyProcess
from tests.store.filled import RICH, everything
from tests.store.harness import MINUTE, TEST_CLOCK, Ask, Direct, Store, head, policy, request, undispatched

FRAGILE = Breaker(failure_threshold=1, timeout_ms=MINUTE)


def measured(store: Store) -> RedisLimitUsage:
    """At the store's own time."""
    nodes = cast("Nodes", Direct(store))
    script = measure_script(replace={"clock": TEST_CLOCK})
    return RedisLimitUsage(store.keys, nodes, shared_calls=not store.cluster, script=script)


def counters(tenant: str, *policies: StoredPolicy) -> tuple[Counter, ...]:
    """What counts for a tenant with these policies."""
    return counters_of(TenantPolicies(tenant, 1, bytes(8), {p.policy_id: p for p in policies}))


async def stand(store: Store, tenant: str, *policies: StoredPolicy) -> LimitUsage:
    """How one tenant stands."""
    (found,) = await measured(store).measure([(tenant, counters(tenant, *policies))])
    assert found is not None
    return found


def used(standing: LimitUsage, of: tuple[Counter, ...]) -> dict[tuple[str, str, str], float]:
    """Units by limit, scope and owner; `bound` is a provider's own."""
    return {
        ("bound" if c.limit is None else c.limit.id, c.scope.value, c.owner): u
        for c, u in zip(of, standing.used, strict=True)
    }


def fail(store: Store, tenant: str, provider: str) -> None:
    """Open a provider's breaker by a failed result."""
    made = store.one(request(tenant, f"fails {provider} at {store.now}"), policy("z"))
    assert isinstance(made, Admitted)
    store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, FRAGILE, provider_entry(provider)))


async def test_every_kind_of_limit_is_told(store: Store) -> None:
    """Tenant, policy and provider; requests, leases, and what remembers every charge. Users are left out."""
    tenant = store.tenant()
    for i in range(3):
        assert isinstance(store.one(request(tenant, str(i), user=f"u{i}"), RICH), Admitted)
    of = counters(tenant, RICH)
    assert used(await stand(store, tenant, RICH), of) == {
        ("tenant", "tenant", ""): 3,
        ("policy", "policy", "default"): 3,
        ("provider", "provider", "a"): 3,
        ("provider", "provider", "b"): 0,
        ("slots", "tenant", ""): 3,
        ("exact", "tenant", ""): 3,
        ("bound", "provider", "a"): 3,
    }
    store.now += 20 * MINUTE
    assert not any((await stand(store, tenant, RICH)).used)


async def test_breakers_are_told_by_state(store: Store) -> None:
    """Open, on trial, and held open by an operator, whatever is behind that; closed ones are not counted."""
    tenant = store.tenant()
    store.client.set(store.of(tenant).head, head(levers={provider_entry("c"): 7, provider_entry("b"): 6}))
    for name in "ab":
        fail(store, tenant, name)
    assert await stand(store, tenant) == LimitUsage(open=2, half_open=0, forced=1, used=())
    store.now += MINUTE
    assert isinstance(store.one(request(tenant, "trial"), policy("a", breaker=FRAGILE)), Admitted)
    fail(store, tenant, "b")
    assert await stand(store, tenant) == LimitUsage(open=1, half_open=1, forced=1, used=())
    fail(store, tenant, "c")
    assert await stand(store, tenant) == LimitUsage(open=1, half_open=1, forced=1, used=())


async def test_an_open_breaker_that_is_due_for_a_probe_counts_as_half_open(store: Store) -> None:
    """Its next request is a probe. So a provider that is idle is not reported as open for a day."""
    tenant = store.tenant()
    fail(store, tenant, "a")
    store.now += MINUTE - 1
    assert await stand(store, tenant) == LimitUsage(open=1, half_open=0, forced=0, used=())
    store.now += 1
    assert await stand(store, tenant) == LimitUsage(open=0, half_open=1, forced=0, used=())
    store.now += 60 * MINUTE
    assert await stand(store, tenant) == LimitUsage(open=0, half_open=1, forced=0, used=())


async def test_a_breaker_that_has_run_out_is_not_counted(store: Store) -> None:
    """Nobody asked for it any more, and a longer limit keeps the string that it lies in."""
    tenant = store.tenant()
    long = policy("a", limits=[limit("days", Scope.TENANT, Resource.REQUESTS, 9, 3 * 24 * 60 * MINUTE)])
    assert isinstance(store.one(request(tenant, "1"), long), Admitted)
    fail(store, tenant, "a")
    store.now += 25 * 60 * MINUTE
    assert await stand(store, tenant, long) == LimitUsage(open=0, half_open=0, forced=0, used=(1,))


async def test_what_cannot_be_read_hides_no_other(store: Store) -> None:
    """A damaged state is told as unknown; its neighbours in the call are told."""
    good, bad = store.tenant(), store.tenant()
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 9, MINUTE)])
    assert isinstance(store.one(request(good, "1"), p), Admitted)
    store.client.set(store.of(bad).state, b"\x09\x01damaged")
    found = await measured(store).measure([(t, counters(t, p)) for t in (bad, good, store.tenant())])
    assert found == [
        None,
        LimitUsage(open=0, half_open=0, forced=0, used=(1,)),
        LimitUsage(open=0, half_open=0, forced=0, used=(0,)),
    ]


async def test_many_tenants_take_several_calls(store: Store) -> None:
    """In the order in which they were asked for."""
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 9, MINUTE)])
    tenants = [store.tenant() for _ in range(measure.MAX_TENANTS * 2 + 1)]
    for n, tenant in enumerate(tenants):
        store.decide(*[Ask(request(tenant, str(i)), p) for i in range(n % 5)])
    found = await measured(store).measure([(t, counters(t, p)) for t in tenants])
    assert found == [LimitUsage(open=0, half_open=0, forced=0, used=(n % 5,)) for n in range(len(tenants))]


async def test_a_look_changes_nothing(store: Store) -> None:
    """No key is made, written or dropped, though windows have passed."""
    tenant = store.tenant()
    store.one(request(tenant, "1"), RICH)
    store.now += 20 * MINUTE
    store.client.set(store.of(tenant).head, head())
    before = dump(store)
    await stand(store, tenant, RICH)
    assert dump(store) == before


async def test_a_store_that_is_full_is_looked_at(servers: None, tmp_path: Path) -> None:
    """Then more than ever: how full limits are is asked for when something is wrong."""
    with ValkeyProcess(tmp_path / "full") as server:
        store = Store(Redis.from_url(server.url))
        tenant = store.tenant()
        p = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 9, MINUTE)])
        assert isinstance(store.one(request(tenant, "1"), p), Admitted)
        nodes = SingleNode(server.url)
        await nodes.open()
        await nodes.call("CONFIG", "SET", "maxmemory", 1)
        (found,) = await RedisLimitUsage(store.keys, nodes).measure([(tenant, counters(tenant, p))])
        assert found is not None
        await nodes.close()


def dump(store: Store) -> dict[bytes, object]:
    """All there is, but for the clock."""
    return {k: store.client.dump(k) for k in everything(store) if b":clock" not in k}


STEPS = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 4)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, algorithm=st.sampled_from(Algorithm))
async def test_it_sees_what_decide_sees(
    store_at_once: Store, steps: list[tuple[int, int]], algorithm: Algorithm
) -> None:
    """What is used and what a row says is left make up the limit, at any time."""
    store = store_at_once
    tenant = store.tenant()
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 8, MINUTE, algorithm=algorithm)])
    for n, (wait, asks) in enumerate(steps):
        store.now += wait
        store.decide(*[Ask(request(tenant, f"{n}.{i}"), p) for i in range(asks)])
        previewed = store.preview(request(tenant, "look"), p)
        assert isinstance(previewed, Admitted | LimitHit)
        assert (await stand(store, tenant, p)).used == (8 - previewed.seen.left[0],)
