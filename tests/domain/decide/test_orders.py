"""The orders of candidates by slot: shares, what a removed provider moves, and the array of busy policies."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.decide.figures import Live, Snapshot
from router.domain.decide.orders import ARRAY_AFTER, MAX_ORDERS, SLOTS, Orders
from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest, Step
from router.domain.policy.model import Policy, Provider, Sticky, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import Selection

ARRAY_BYTES = 2 * SLOTS


def stored(*providers: Provider, **more: object) -> StoredPolicy:
    """A policy of these providers."""
    return StoredPolicy("default", 1, "0" * 16, Policy(providers, **more))  # type: ignore[arg-type]


def equal_providers(count: int) -> list[Provider]:
    """Providers of equal weight."""
    return [provider(f"p{i}") for i in range(count)]


def orders_of(policy: StoredPolicy, tenant_id: str = "acme") -> Orders:
    """The policy's orders by weight, with nothing cached."""
    return Orders(tenant_id, policy, policy.policy.shares)


def ranked_names(policy: StoredPolicy, orders: Orders, slot: int) -> list[str]:
    """The names of the pool in the order of a slot."""
    return [policy.policy.pool[i].name for i in orders.of(slot).ranked]


def first_names(policy: StoredPolicy, tenant_id: str, count: int = 1) -> list[str]:
    """The first candidates of so many requests of a tenant."""
    requests = (DecideRequest(tenant_id, f"r{n}", policy.policy_id, "chat", bytes(8)) for n in range(count))
    return [plan(request, policy).candidates[0].provider.name for request in requests]


@pytest.mark.heavy
@pytest.mark.parametrize("weights", [(40, 30, 20, 10), (50, 50), (97, 2, 1), (1,) * 12])
def test_shares_are_within_half_a_point_of_the_weights(weights: tuple[int, ...]) -> None:
    """Over all slots each provider comes first as often as its weight says."""
    policy = stored(*(provider(f"p{i}", weight) for i, weight in enumerate(weights)))
    orders = orders_of(policy)
    counts = Counter(orders.of(slot).ranked[0] for slot in range(SLOTS))
    for i, weight in enumerate(weights):
        assert abs(counts[i] / SLOTS - weight / sum(weights)) < 0.005


@given(
    weights=st.lists(st.integers(1, 100), min_size=2, max_size=9),
    priorities=st.lists(st.integers(0, 2), min_size=9, max_size=9),
    removed=st.integers(0, 8),
    tenant_id=st.sampled_from(["acme", "a", "tenant.with-dots", "ü"]),
    slots=st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=20),
)
def test_a_removed_provider_moves_only_its_own_share(
    weights: list[int], priorities: list[int], removed: int, tenant_id: str, slots: list[int]
) -> None:
    """In every slot the other providers keep their order."""
    pool = [provider(f"p{i}", w, priority=priorities[i]) for i, w in enumerate(weights)]
    name = pool[removed % len(pool)].name
    all_of_them, without = stored(*pool), stored(*(p for p in pool if p.name != name))
    before, after = orders_of(all_of_them, tenant_id), orders_of(without, tenant_id)
    for slot in slots:
        left = [n for n in ranked_names(all_of_them, before, slot) if n != name]
        assert ranked_names(without, after, slot) == left


@pytest.mark.parametrize("count", [1, 2, 4, 6, 9])
def test_a_slot_has_one_order_with_and_without_the_array(count: int) -> None:
    """What a busy policy looks up is what an idle one computes."""
    policy = stored(*equal_providers(count))
    busy, slots = orders_of(policy), [n * 7919 % SLOTS for n in range(1_500)]
    computed = [orders_of(policy).of(slot).ranked for slot in slots[:50]]
    first_time = [busy.of(slot).ranked for slot in slots]
    assert [busy.of(slot).ranked for slot in slots] == first_time
    assert first_time[:50] == computed


def test_the_array_comes_with_use_and_is_counted() -> None:
    """A policy of few requests has no array; that of a busy one counts as memory until it is dropped."""
    policy = stored(*equal_providers(4))
    cache = policy.policy.plan_cache
    first_names(policy, "acme", ARRAY_AFTER - 1)
    small = cache.size_bytes
    assert 0 < small < 20_000
    first_names(policy, "acme", ARRAY_AFTER)
    assert ARRAY_BYTES < cache.size_bytes <= small + ARRAY_BYTES + 100
    cache.forget()
    assert cache.size_bytes == 0


@pytest.mark.parametrize(
    "policy",
    [
        stored(provider("only")),
        stored(*(provider(f"p{i}", priority=i) for i in range(5))),
        stored(*equal_providers(12)),
        stored(*equal_providers(4), selection=Selection.BEST_SCORE),
    ],
    ids=["one provider", "all priorities differ", "too many orders", "by score"],
)
def test_no_array_where_it_would_not_help(policy: StoredPolicy) -> None:
    """There is one order, or too many to keep, or they change with the figures."""
    snapshot = Snapshot(1, {provider_entry("p0"): Live(100, 32, 0, 0)})
    for n in range(2 * ARRAY_AFTER):
        plan(DecideRequest("acme", f"r{n}", "default", "chat", bytes(8)), policy, snapshot=snapshot)
    assert policy.policy.plan_cache.size_bytes < 2_000 + MAX_ORDERS * 1_600


def test_tenants_that_share_a_policy_have_orders_of_their_own() -> None:
    """Equal sessions of many tenants do not meet at one provider, however full one tenant's cache is."""
    policy = stored(*equal_providers(8), sticky=Sticky())

    def first(tenant_id: str) -> str:
        request = DecideRequest(
            tenant_id, "r", "default", "chat", bytes(8), context={"session_id": "main-session-of-all"}
        )
        return plan(request, policy).candidates[0].provider.name

    alone = [first(f"t{n}") for n in range(60)]
    assert len(set(alone)) == 8
    for _ in range(ARRAY_AFTER + 1):
        first("t0")
    assert [first(f"t{n}") for n in range(60)] == alone
    assert policy.policy.plan_cache.size_bytes < 20_000


def test_the_steps_of_a_request_share_one_order() -> None:
    """A caller that asks for the next provider gets the next one of the same order, whichever ids it sends."""
    policy = stored(*equal_providers(6))
    for n in range(30):
        for key in (None, f"key-{n}"):
            asked = DecideRequest("acme", f"r{n}", "default", "chat", bytes(8), idempotency_key=key)
            first = [c.provider.name for c in plan(asked, policy).candidates]
            step = Step("timeout", first[0], 0)
            again = DecideRequest("acme", f"r{n}", "default", "chat", bytes(8), idempotency_key=key, step=step)
            assert [c.provider.name for c in plan(again, policy).candidates] == [*first[1:], first[0]]


def test_new_figures_change_the_candidates_and_not_the_order() -> None:
    """A cached order follows the snapshot, there and back."""
    policy = stored(*(provider(f"p{i}", expected_latency_ms=100) for i in range(3)))
    learned = Snapshot(7, {provider_entry(f"p{i}"): Live(400, 32, 0, 0) for i in range(3)})
    request = DecideRequest("acme", "r", "default", "chat", bytes(8))
    before, during, after = plan(request, policy), plan(request, policy, snapshot=learned), plan(request, policy)
    assert [c.provider for c in before.candidates] == [c.provider for c in during.candidates]
    assert {c.expected_latency_ms for c in during.candidates} == {391}
    assert after.candidates == before.candidates
