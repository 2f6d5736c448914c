"""A tenant's quota of audit records: how many its log gets in a window, whatever its requests come to."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, Conflict, LimitHit, NoCandidate, Outcome, TenantOff
from router.domain.policy.limits import limit
from router.domain.policy.model import AUDIT_QUOTA_ID, Limit, StoredPolicy
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from tests.store.harness import MINUTE, Ask, Store, policy, request

BUCKET = MINUTE // 11 + 1


def quota(maximum: int) -> Limit:
    """So many records a minute."""
    return limit(AUDIT_QUOTA_ID, Scope.TENANT, Resource.REQUESTS, maximum, MINUTE)


def under(maximum: int, *limits: Limit) -> StoredPolicy:
    """One provider, limits, and the quota at the end, where `decision_quotas` puts it."""
    return policy("a", limits=[*limits, quota(maximum)])


def tenants_of(maximum: int) -> Limit:
    """A limit of the tenant that has nothing to do with the quota."""
    return limit("few", Scope.TENANT, Resource.REQUESTS, maximum, MINUTE)


def unrecorded(outcome: Outcome) -> bool:
    """Whether the pod is told to count it."""
    return isinstance(outcome, LimitHit) and not outcome.recorded


def test_decisions_fill_it(store: Store) -> None:
    """So many are made; the refusal that finds it used up is recorded, and those after it are not."""
    tenant, p = store.tenant(), under(5)
    found = [store.one(request(tenant, str(n)), p) for n in range(20)]
    assert [type(x) for x in found] == [Admitted] * 5 + [LimitHit] * 15
    assert [unrecorded(x) for x in found] == [False] * 6 + [True] * 14
    assert store.actions(tenant) == ["decision.made"] * 5 + ["decision.refused"]
    last = store.audit(tenant)[-1]
    assert (last.outcome, last.details["limit_id"]) == ("limited", AUDIT_QUOTA_ID)


def test_refusals_fill_it_too(store: Store) -> None:
    """Of whatever reason: another limit, no candidate, a conflict, a switched-off tenant."""
    tenant, p = store.tenant(), under(8, tenants_of(2))
    kinds = [store.one(request(tenant, str(n)), p) for n in range(5)]
    kinds.append(store.one(request(tenant, "0", same_as="another"), p))
    kinds.append(store.one(request(tenant, "9"), policy(limits=p.policy.limits)))
    assert [type(x) for x in kinds] == [Admitted, Admitted, LimitHit, LimitHit, LimitHit, Conflict, LimitHit]
    assert len(store.audit(tenant)) == 7
    assert [unrecorded(store.one(request(tenant, f"x{n}"), p)) for n in range(4)] == [False, False, True, True]
    # From here on every refusal is counted, and told as the quota's, with the moment when there is room again.
    found = store.one(request(tenant, "0", same_as="another"), p)
    assert found == LimitHit(1, 12 * BUCKET - store.now % BUCKET, recorded=False)
    assert len(store.audit(tenant)) == 9


async def test_a_tenant_that_is_off(store: Store) -> None:
    """Its refusals are bounded as well."""
    tenant, p = store.tenant(), under(3)
    store.client.set(store.of(tenant).head, b"\1" + bytes(8) + b"\1\0\0")
    found = [store.one(request(tenant, str(n)), p) for n in range(9)]
    assert [type(x) for x in found] == [TenantOff] * 4 + [LimitHit] * 5
    assert len(store.audit(tenant)) == 4


def test_without_candidates(store: Store) -> None:
    """No provider: recorded up to the quota, then counted."""
    tenant, p = store.tenant(), policy(limits=[quota(2)])
    found = [store.one(request(tenant, str(n)), p) for n in range(5)]
    assert [type(x) for x in found] == [NoCandidate, NoCandidate, LimitHit, LimitHit, LimitHit]
    assert [unrecorded(x) for x in found] == [False, False, False, True, True]


def test_replays_are_free(store: Store) -> None:
    """They make no record, so they are answered however full it is."""
    tenant, p = store.tenant(), under(1)
    first = store.one(request(tenant, "1"), p)
    assert isinstance(first, Admitted)
    assert not isinstance(store.one(request(tenant, "2"), p), Admitted)
    assert not isinstance(store.one(request(tenant, "3"), p), Admitted)
    assert not isinstance(store.one(request(tenant, "1"), p), LimitHit)
    assert len(store.audit(tenant)) == 2


def test_a_look_makes_no_record_and_takes_none(store: Store) -> None:
    """It is told of the quota all the same."""
    tenant, p = store.tenant(), under(1)
    assert isinstance(store.preview(request(tenant, "1"), p), Admitted)
    assert isinstance(store.one(request(tenant, "1"), p), Admitted)
    assert [store.preview(request(tenant, "2"), p) for _ in range(3)] == [store.preview(request(tenant, "2"), p)] * 3
    assert len(store.audit(tenant)) == 1


def test_it_stands_beside_limits_of_other_kinds(store: Store) -> None:
    """Leases and logs of charges are told apart from it."""
    exact = limit("exact", Scope.TENANT, Resource.REQUESTS, 4, MINUTE, algorithm=Algorithm.LOG)
    slots = limit("slots", Scope.TENANT, Resource.CONCURRENCY, 6, 0)
    shadow = replace(tenants_of(1), shadow=True)
    tenant, p = store.tenant(), under(5, exact, slots, shadow)
    found = [store.one(request(tenant, str(n)), p) for n in range(8)]
    assert [type(x) for x in found] == [Admitted] * 4 + [LimitHit] * 4
    assert [unrecorded(x) for x in found] == [False] * 6 + [True] * 2


def test_another_tenant_has_its_own(store: Store) -> None:
    """In one call, too."""
    one, two, p = store.tenant(), store.tenant(), under(2)
    found = store.decide(*(Ask(request(tenant, str(n)), p) for n in range(5) for tenant in (one, two)))
    assert [isinstance(x, Admitted) for x in found] == [True] * 4 + [False] * 6
    assert len(store.audit(one)) == len(store.audit(two)) == 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 15_000)), min_size=1, max_size=60), st.integers(1, 8))
def test_no_window_has_more(store_at_once: Store, steps: list[tuple[int, int]], maximum: int) -> None:
    """Whatever comes when: no minute has more than the quota and one; records and counts add up to what was asked."""
    store = store_at_once
    tenant, p = store.tenant(), under(maximum, tenants_of(3))
    counted, asked = 0, 0
    for n, (which, later) in enumerate(steps):
        store.now += later
        outcome = store.one(request(tenant, f"{n}" if which else "same", same_as=str(n)), p)
        asked += 1
        counted += unrecorded(outcome)
    at = [e.ts_us // 1000 for e in store.audit(tenant)]
    assert len(at) + counted == asked
    assert all(sum(1 for t in at if since <= t < since + MINUTE) <= maximum + 1 for since in at)
