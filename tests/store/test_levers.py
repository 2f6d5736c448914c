"""Operators' levers on a real server and a real Cluster: in force at the next row, recorded, idempotent."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from redis import Redis

from router.domain.audit.records import Actor
from router.domain.decide.outcome import Admitted, NoCandidate, Replay, TenantOff
from router.domain.ids import idempotency_name
from router.domain.levers import ActOutcome, BreakerState, TenantHead
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, provider_entry
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.errors import StoreError
from router.store.keys import NO_TENANT
from router.store.levers import MAX_LEVERS, RedisLevers
from router.store.packing import head as head_of
from router.store.policies import RedisPolicies
from router.store.servers.nodes import Nodes, SingleNode
from router.store.tenants.inspect import RedisInspector
from tests.store.harness import MINUTE, Ask, Direct, Store, head, policy, request, undispatched

R = ("request_id", "r")
ALICE = Actor(principal="alice", role="operator", trace_id="trace-1")
FRAGILE = Breaker(failure_threshold=1, timeout_ms=MINUTE)
AB = policy("a", "b", breaker=FRAGILE)


class Act(Struct, frozen=True):
    """One act on provider a (or the tenant), and what its record says."""

    do: Callable[[RedisLevers, str], Awaitable[ActOutcome]]
    action: str
    resource: tuple[str, str | None]
    details: dict[str, str]


ACTS = {
    "drain": Act(
        lambda levers, t: levers.drain(t, provider="a", on=True, by=ALICE, why="too hot"),
        "provider.drained",
        ("provider", "a"),
        {"why": "too hot"},
    ),
    "force": Act(
        lambda levers, t: levers.force_open(t, provider="a", by=ALICE),
        "breaker.forced",
        ("provider", "a"),
        {"state": "open"},
    ),
    "disable": Act(lambda levers, t: levers.switch(t, on=False, by=ALICE), "tenant.disabled", ("tenant", None), {}),
}


@pytest.fixture
def tenant(store: Store) -> str:
    """A tenant that has a head, as every one with a policy has."""
    name = store.tenant()
    store.client.set(store.of(name).head, head())
    return name


def chosen(store: Store, tenant: str, request_id: str) -> int:
    """The candidate that a fresh request gets; -1 when it gets none."""
    outcome = store.one(request(tenant, request_id), AB)
    assert isinstance(outcome, Admitted | NoCandidate)
    return outcome.candidate if isinstance(outcome, Admitted) else -1


def trip(store: Store, tenant: str, request_id: str, provider: str = "a") -> None:
    """Open the provider's breaker by a failed result."""
    made = store.one(request(tenant, request_id), AB)
    assert isinstance(made, Admitted)
    store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.FAILURE, FRAGILE, provider_entry(provider)))


async def test_a_drained_provider_gets_no_work_until_it_is_enabled(store: Store, tenant: str) -> None:
    """The next row walks past it, the one after `enable` does not."""
    assert chosen(store, tenant, "1") == 0
    await store.levers.drain(tenant, provider="a", on=True, by=ALICE)
    assert chosen(store, tenant, "2") == 1
    await store.levers.drain(tenant, provider="b", on=True, by=ALICE)
    assert chosen(store, tenant, "3") == -1
    await store.levers.drain(tenant, provider="a", on=False, by=ALICE)
    assert chosen(store, tenant, "4") == 0


async def test_a_forced_breaker_is_open_until_it_is_reset(store: Store, tenant: str) -> None:
    """It stays open over time and successes, and a reset lets traffic in at once."""
    await store.levers.force_open(tenant, provider="a", by=ALICE)
    store.now += 100 * MINUTE
    assert chosen(store, tenant, "1") == 1
    assert await store.levers.reset_breaker(tenant, provider="a", by=ALICE) is ActOutcome.CHANGED
    assert chosen(store, tenant, "2") == 0


async def test_a_tripped_breaker_is_closed_by_a_reset(store: Store, tenant: str) -> None:
    """The entry goes, and the breaker counts from nothing; that of another provider and the limits stay."""
    counted = policy("a", "b", breaker=FRAGILE, limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 2, MINUTE)])
    assert isinstance(store.one(request(tenant, "0"), counted), Admitted)
    trip(store, tenant, "1")
    trip(store, tenant, "2", "b")
    assert chosen(store, tenant, "3") == -1
    assert await store.levers.reset_breaker(tenant, provider="a", by=ALICE) is ActOutcome.CHANGED
    assert chosen(store, tenant, "4") == 0
    await store.levers.drain(tenant, provider="a", on=True, by=ALICE)
    assert chosen(store, tenant, "5") == -1, "the breaker of b is still open"
    await store.levers.drain(tenant, provider="a", on=False, by=ALICE)
    assert isinstance(store.one(request(tenant, "6"), counted), Admitted)
    assert not isinstance(store.one(request(tenant, "7"), counted), Admitted), "the limit has kept its count"


async def test_the_state_keeps_its_life_time_over_a_reset(store: Store, tenant: str) -> None:
    """What is left of the state has a TTL; when nothing is left the key goes."""
    trip(store, tenant, "1")
    trip(store, tenant, "2", "b")
    key = store.of(tenant).state
    await store.levers.reset_breaker(tenant, provider="a", by=ALICE)
    assert 0 < int(store.client.pttl(key)) <= 24 * 60 * MINUTE + 3 * MINUTE
    await store.levers.reset_breaker(tenant, provider="b", by=ALICE)
    assert store.value(key) is None


async def test_drain_and_force_are_two_levers(store: Store, tenant: str) -> None:
    """Letting go of one leaves the other: a provider under both is out until both are gone."""
    await store.levers.drain(tenant, provider="a", on=True, by=ALICE)
    await store.levers.force_open(tenant, provider="a", by=ALICE)
    await store.levers.drain(tenant, provider="a", on=False, by=ALICE)
    assert chosen(store, tenant, "1") == 1
    await store.levers.drain(tenant, provider="a", on=True, by=ALICE)
    await store.levers.reset_breaker(tenant, provider="a", by=ALICE)
    assert chosen(store, tenant, "2") == 1
    await store.levers.drain(tenant, provider="a", on=False, by=ALICE)
    assert chosen(store, tenant, "3") == 0


async def test_a_disabled_tenant_gets_nothing_new(store: Store, tenant: str) -> None:
    """Fresh requests are refused, an old answer is still told, others are not concerned; `enable` ends it."""
    other = store.tenant()
    store.one(request(tenant, "old"), AB)
    await store.levers.switch(tenant, on=False, by=ALICE)
    outcomes = store.decide(
        Ask(request(tenant, "new"), AB), Ask(request(tenant, "old"), AB), Ask(request(other, "new"), AB)
    )
    assert [type(o) for o in outcomes] == [TenantOff, Replay, Admitted]
    await store.levers.switch(tenant, on=True, by=ALICE)
    assert chosen(store, tenant, "new") == 0


async def test_a_forgotten_request_is_decided_anew(store: Store, tenant: str) -> None:
    """Under its own name only: another request and another namespace are remembered still."""
    first = store.one(request(tenant, "r"), AB)
    assert isinstance(first, Admitted)
    store.one(request(tenant, "other"), AB)
    forget = store.levers.forget
    wrong = idempotency_name(tenant, "key", "r")
    assert await forget(tenant, wrong, called=R, by=ALICE) is ActOutcome.UNCHANGED
    assert await forget(tenant, idempotency_name(tenant, "request", "r"), called=R, by=ALICE) is ActOutcome.CHANGED
    again, other = store.decide(Ask(request(tenant, "r"), AB), Ask(request(tenant, "other"), AB))
    assert isinstance(again, Admitted)
    assert again.decision_id != first.decision_id
    assert isinstance(other, Replay)
    (record,) = [e for e in store.audit(tenant) if e.action == "role.used"]
    assert (record.user_id, record.resource_type, record.resource_id) == ("alice", "request", "r")
    assert record.details == {"role": "operator", "act": "forget_idempotency_key", "request_id": "r"}


@pytest.mark.parametrize("name", ACTS)
async def test_the_act_is_recorded_once(store: Store, tenant: str, name: str) -> None:
    """Who, with which role, to what, in the log of the tenant; a repeat changes nothing and leaves no record."""
    act = ACTS[name]
    assert await act.do(store.levers, tenant) is ActOutcome.CHANGED
    before = store.value(store.of(tenant).head)
    assert await act.do(store.levers, tenant) is ActOutcome.UNCHANGED
    assert store.value(store.of(tenant).head) == before
    (entry,) = store.audit(tenant)
    kind, resource = act.resource
    assert (entry.action, entry.user_id, entry.trace_id) == (act.action, "alice", "trace-1")
    assert (entry.resource_type, entry.resource_id) == (kind, resource or tenant)
    assert entry.details == {"role": "operator", **act.details}
    assert entry.ts_us == store.now * 1000 + 7


@pytest.mark.parametrize("name", ACTS)
async def test_the_next_row_tells_every_pod(store: Store, tenant: str, name: str) -> None:
    """The stamp is another one, so pods read the head again; the revision is of the policies and stays."""
    await ACTS[name].do(store.levers, tenant)
    store.one(request(tenant, "r"), AB)
    (stamp,) = store.stamps
    assert stamp != b"\x00\x00\x00\x07rand"
    assert stamp[:4] == b"\x00\x00\x00\x07"


@pytest.mark.parametrize("name", ACTS)
async def test_an_unknown_tenant_gets_no_keys(store: Store, name: str) -> None:
    """A tenant that has never had a policy has no head, and an act leaves none."""
    tenant = store.tenant()
    assert await ACTS[name].do(store.levers, tenant) is ActOutcome.UNKNOWN_TENANT
    assert await store.levers.reset_breaker(tenant, provider="a", by=ALICE) is ActOutcome.UNKNOWN_TENANT
    assert await store.levers.forget(tenant, bytes(10), called=R, by=ALICE) is ActOutcome.UNKNOWN_TENANT
    assert list(store.client.scan_iter(store.of(tenant).prefix + b"*")) == []


@pytest.mark.parametrize("name", ACTS)
async def test_an_act_that_cannot_be_recorded_is_not_done(store: Store, tenant: str, name: str) -> None:
    """Act and record are one: a foreign key in the log's place, and the head stays as it was."""
    store.client.set(store.of(tenant).audit, "foreign")
    before = store.value(store.of(tenant).head)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await ACTS[name].do(store.levers, tenant)
    assert store.value(store.of(tenant).head) == before


async def test_levers_have_a_bound(store: Store, tenant: str) -> None:
    """One more than the bound is refused; to let go of one is not."""
    for n in range(MAX_LEVERS):
        assert await store.levers.drain(tenant, provider=f"p{n}", on=True, by=ALICE) is ActOutcome.CHANGED
    assert await store.levers.force_open(tenant, provider="one-more", by=ALICE) is ActOutcome.FULL
    assert await store.levers.drain(tenant, provider="p0", on=False, by=ALICE) is ActOutcome.CHANGED
    assert await store.levers.force_open(tenant, provider="one-more", by=ALICE) is ActOutcome.CHANGED
    raw = store.value(store.of(tenant).head)
    assert raw is not None
    view = head_of(tenant, raw)
    assert view.drained == {provider_entry(f"p{n}") for n in range(1, MAX_LEVERS)}
    assert view.forced == {provider_entry("one-more")}


async def test_a_damaged_head_is_left_alone(store: Store) -> None:
    """A head that does not hold as many levers as it says is not written over."""
    tenant = store.tenant()
    raw = head(levers={provider_entry("a"): 6})[:-1]
    store.client.set(store.of(tenant).head, raw)
    with pytest.raises(Exception, match="levers of a head"):
        await store.levers.drain(tenant, provider="b", on=True, by=ALICE)
    assert store.value(store.of(tenant).head) == raw


async def test_roles_are_recorded_where_no_tenant_is(store: Store) -> None:
    """In one bounded log, that can be read like a tenant's."""
    await store.levers.role_used(ALICE, "drain_provider", "acme", "done")
    await store.levers.role_used(Actor(principal="bob", role="viewer"), "list_tenants", None, "refused")
    log = store.audit(NO_TENANT)
    assert [(e.action, e.user_id, e.resource_id, e.details) for e in log] == [
        ("role.used", "alice", "acme", {"role": "operator", "act": "drain_provider", "outcome": "done"}),
        ("role.used", "bob", None, {"role": "viewer", "act": "list_tenants", "outcome": "refused"}),
    ]
    assert int(store.client.pttl(store.keys.acts)) > 0


async def test_a_damaged_tenant_hides_no_other(single: Redis, redis_url: str) -> None:
    """Asked about all, the damaged one is left out of breakers and heads; asked about it alone, the fault is told."""
    store = Store(single)
    good, bad = store.tenant(), store.tenant()
    for name in (good, bad):
        single.set(store.of(name).head, head(levers={provider_entry("a"): 7}))
    single.set(store.of(bad).head, head(levers={provider_entry("a"): 7})[:-1])
    single.set(store.of(bad).state, b"\x01\x00cut")
    nodes = SingleNode(redis_url)
    inspector = RedisInspector(store.keys, nodes)
    assert [h.tenant_id for h in await inspector.heads()] == [good]
    assert [(v.tenant_id, v.state, v.forced) async for p in inspector.all_breakers() for v in p] == [
        (good, BreakerState.OPEN, True)
    ]
    for look in (inspector.heads, inspector.breakers):
        with pytest.raises(StoreError, match=bad):
            await look(bad)
    await nodes.close()


async def test_a_forced_breaker_keeps_its_own_figures(single: Redis, redis_url: str) -> None:
    """Over a breaker that has tripped the view is one: open, forced, since when it was open, without a next probe."""
    store = Store(single)
    tenant = store.tenant()
    single.set(store.of(tenant).head, head())
    trip(store, tenant, "1")
    await store.levers.force_open(tenant, provider="a", by=ALICE)
    nodes = SingleNode(redis_url)
    (view,) = await RedisInspector(store.keys, nodes).breakers(tenant)
    await nodes.close()
    assert (view.state, view.forced, view.opened_at_ms) == (BreakerState.OPEN, True, store.now)
    assert (view.next_probe_at_ms, view.failures_in_a_row) == (0, 1)


PULLS: dict[str, Callable[[RedisLevers, str], Coroutine[Any, Any, ActOutcome]]] = {
    "drain a": lambda levers, t: levers.drain(t, provider="a", on=True, by=ALICE),
    "enable a": lambda levers, t: levers.drain(t, provider="a", on=False, by=ALICE),
    "drain b": lambda levers, t: levers.drain(t, provider="b", on=True, by=ALICE),
    "enable b": lambda levers, t: levers.drain(t, provider="b", on=False, by=ALICE),
    "force a": lambda levers, t: levers.force_open(t, provider="a", by=ALICE),
    "reset a": lambda levers, t: levers.reset_breaker(t, provider="a", by=ALICE),
    "off": lambda levers, t: levers.switch(t, on=False, by=ALICE),
    "on": lambda levers, t: levers.switch(t, on=True, by=ALICE),
}
DOCUMENT = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'


@given(st.lists(st.sampled_from([*PULLS, "apply", "delete"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_order_of_acts_and_policies(store_at_once: Store, acts: list[str]) -> None:
    """After any acts and policy writes the head holds what a model says; each act that changed something has one record
    and left the revision; each write of a policy left switch and levers."""
    store = store_at_once
    tenant, policies = store.tenant(), RedisPolicies(cast("Nodes", Direct(store)), store.keys)
    held, off, there, records = set[str](), False, True, 1
    done(policies.apply(tenant, policy_id="default", document=DOCUMENT, expect_revision=None))
    for act in acts:
        before = view(store, tenant)
        if act in ("apply", "delete"):
            if act == "apply" or there:
                if act == "apply":
                    done(policies.apply(tenant, policy_id="default", document=DOCUMENT, expect_revision=None))
                else:
                    done(policies.delete(tenant, policy_id="default", expect_revision=None))
                records += 1
            there = act == "apply"
            assert before.revision <= view(store, tenant).revision
            continue
        verb, _, name = act.partition(" ")
        was = (held.copy(), off)
        match verb:
            case "drain" | "force":
                held.add(act)
            case "enable":
                held.discard(f"drain {name}")
            case "reset":
                held.discard(f"force {name}")
            case _:
                off = verb == "off"
        wanted = (held.copy(), off)
        assert done(PULLS[act](store.levers, tenant)) is (ActOutcome.UNCHANGED if wanted == was else ActOutcome.CHANGED)
        records += wanted != was
        after = view(store, tenant)
        assert after.revision == before.revision
    last = view(store, tenant)
    assert last.off == off
    assert last.drained == {provider_entry(x[-1]) for x in held if x.startswith("drain")}
    assert last.forced == {provider_entry(x[-1]) for x in held if x.startswith("force")}
    assert len(store.audit(tenant)) == records


def view(store: Store, tenant: str) -> TenantHead:
    """The head as it is."""
    raw = store.value(store.of(tenant).head)
    assert raw is not None
    return head_of(tenant, raw)


def done(act: Coroutine[Any, Any, Any]) -> Any:
    """The result of an act that never waits: the store's client is a synchronous one."""
    try:
        act.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")
