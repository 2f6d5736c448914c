"""One row of lua/decide.lua: replay, limits, leases, what a refusal leaves behind."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from router.domain.decide.decision import Reason
from router.domain.decide.outcome import Admitted, Conflict, LimitHit, Replay, TenantOff, Unavailable
from router.domain.decide.request import Options
from router.domain.ids import name_in, task_id
from router.domain.policy.limits import limit
from router.domain.policy.model import Limit, StoredPolicy, provider
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.task import TaskState
from tests.store.harness import MINUTE, START_MS, Ask, Store, head, policy, request

REQUESTS, TOKENS, COST, CONCURRENCY = Resource.REQUESTS, Resource.TOKENS, Resource.COST, Resource.CONCURRENCY


def per_tenant(
    maximum: int,
    window_ms: int = MINUTE,
    *,
    resource: Resource = REQUESTS,
    shadow: bool = False,
    algorithm: Algorithm = Algorithm.SLIDING,
) -> Limit:
    """A limit of the tenant."""
    return limit(f"tenant-{resource}", Scope.TENANT, resource, maximum, window_ms, shadow=shadow, algorithm=algorithm)


def admitted(store: Store, tenant: str, limits: list[Limit], count: int, *, start: int = 0) -> int:
    """How many of `count` fresh requests pass."""
    p = policy("a", limits=limits)
    return sum(
        isinstance(o, Admitted)
        for o in store.decide(*(Ask(request(tenant, f"n{i}"), p) for i in range(start, start + count)))
    )


# Idempotency


def test_a_repeat_is_a_replay(store: Store) -> None:
    """The same request twice: one decision, told twice."""
    tenant = store.tenant()
    p = policy("a")
    first = store.one(request(tenant, "r"), p)
    again = store.one(request(tenant, "r"), p)
    assert isinstance(first, Admitted)
    assert isinstance(again, Replay)
    assert again.remembered.decision_id == first.decision_id
    assert (again.remembered.provider_id, again.remembered.reason) == ("a", Reason.WEIGHTED)


def test_a_repeat_in_the_same_batch_is_a_replay(store: Store) -> None:
    """Rows of one call see each other."""
    ask = Ask(request(store.tenant(), "r"), policy("a"))
    outcomes = store.decide(ask, ask, ask)
    assert [type(o) for o in outcomes] == [Admitted, Replay, Replay]


def test_a_replay_writes_nothing(store: Store) -> None:
    """Neither the log nor the counter nor the pin moves."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(1)])
    store.one(request(tenant, "r"), p)
    before = [store.value(store.of(tenant).state), store.actions(tenant)]
    assert isinstance(store.one(request(tenant, "r"), p), Replay)
    assert [store.value(store.of(tenant).state), store.actions(tenant)] == before


def test_another_request_under_the_same_key_is_a_conflict(store: Store) -> None:
    """It is audited and changes nothing; the first answer stands."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(5)])
    store.one(request(tenant, "r"), p)
    state = store.value(store.of(tenant).state)
    assert store.one(request(tenant, "r", same_as="another"), p) == Conflict()
    assert store.value(store.of(tenant).state) == state
    assert store.actions(tenant) == ["decision.made", "decision.conflict"]
    assert isinstance(store.one(request(tenant, "r"), p), Replay)


def test_tenants_do_not_share_request_ids(store: Store) -> None:
    """The same id of another tenant is another request."""
    p = policy("a")
    outcomes = store.decide(*(Ask(request(store.tenant(), "r"), p) for _ in range(3)))
    assert {type(o) for o in outcomes} == {Admitted}


def test_an_answer_is_remembered_for_a_day(store: Store) -> None:
    """The key lives for 24 hours."""
    tenant = store.tenant()
    made = store.one(request(tenant, "r"), policy("a"))
    assert isinstance(made, Admitted)
    ttl: object = store.client.pttl(store.of(tenant).idem(name_in(made.decision_id)))
    assert isinstance(ttl, int)
    assert 86_400_000 - 20_000 < ttl <= 86_400_000


def test_the_log_expires_though_nothing_was_admitted(store: Store) -> None:
    """A tenant whose every request is refused leaves a log with a time to live."""
    tenant = store.tenant()
    assert isinstance(store.one(request(tenant, "r"), policy("a", limits=[per_tenant(0)])), LimitHit)
    ttl: object = store.client.pttl(store.of(tenant).audit)
    assert isinstance(ttl, int)
    assert ttl > 7 * 86_400_000


# Refusals


def test_a_refusal_charges_nothing(store: Store) -> None:
    """Refused requests leave every counter as it was, and are audited."""
    tenant = store.tenant()
    limits = [per_tenant(1), limit("wide", Scope.POLICY, REQUESTS, 100, MINUTE)]
    assert admitted(store, tenant, limits, 1) == 1
    keys = store.of(tenant)
    before = [store.value(keys.state), store.value(keys.policy_state("default"))]
    assert admitted(store, tenant, limits, 5, start=1) == 0
    assert [store.value(keys.state), store.value(keys.policy_state("default"))] == before
    assert store.actions(tenant) == ["decision.made"] + ["decision.refused"] * 5


def test_a_refused_request_may_be_tried_again(store: Store) -> None:
    """The same id is admitted once there is room: a refusal is not remembered."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(1)])
    store.one(request(tenant, "first"), p)
    refused = store.one(request(tenant, "r"), p)
    assert isinstance(refused, LimitHit)
    assert refused.retry_after_ms is not None
    store.now += refused.retry_after_ms
    assert isinstance(store.one(request(tenant, "r"), p), Admitted)


@pytest.mark.parametrize("refusing", range(4))
def test_limits_are_all_or_nothing(store: Store, refusing: int) -> None:
    """When one of four scopes refuses, the other three are not charged, whichever it is."""
    tenant = store.tenant()
    scopes = (Scope.TENANT, Scope.USER, Scope.POLICY, Scope.PROVIDER)
    limits = [limit(s, s, REQUESTS, 1 if i == refusing else 10, MINUTE) for i, s in enumerate(scopes)]
    p = policy("a", limits=limits)
    assert isinstance(store.one(request(tenant, "one", user="u"), p), Admitted)
    keys = store.of(tenant)
    owners = (keys.state, keys.user_state("u"), keys.policy_state("default"), keys.provider_state("a"))
    before = [store.value(k) for k in owners]
    assert None not in before
    assert not isinstance(store.one(request(tenant, "two", user="u"), p), Admitted)
    assert [store.value(k) for k in owners] == before


def test_what_can_never_pass_has_no_moment(store: Store) -> None:
    """More units than the limit has at all: retry_after is unknown, though the counter is empty."""
    p = policy("a", limits=[per_tenant(10, resource=TOKENS)])
    tenant = store.tenant()
    outcome = store.one(request(tenant, "r", options=Options(estimate_tokens=11)), p)
    assert outcome == LimitHit(0, None)
    assert isinstance(store.one(request(tenant, "r", options=Options(estimate_tokens=10)), p), Admitted)


def test_the_strictest_limit_is_named(store: Store) -> None:
    """Of two limits that refuse, the one that refuses for longer is told."""
    tenant = store.tenant()
    quick = limit("quick", Scope.TENANT, REQUESTS, 1, MINUTE)
    slow = limit("slow", Scope.TENANT, REQUESTS, 1, 60 * MINUTE)
    for limits, index in (([quick, slow], 1), ([slow, quick], 0)):
        p = policy("a", limits=limits)
        store.one(request(tenant, f"fill{index}"), p)
        refused = store.one(request(tenant, f"more{index}"), p)
        assert isinstance(refused, LimitHit)
        assert refused.charge == index


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("seed", range(6))
def test_retry_after_is_the_moment(store: Store, seed: int, algorithm: Algorithm) -> None:
    """A request is refused up to one millisecond before retry_after, and admitted then."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(50, resource=TOKENS, algorithm=algorithm)])
    for i in range(12):
        store.one(request(tenant, f"fill{i}", options=Options(estimate_tokens=7)), p)
        store.now += 3_333 + seed * 701
    wanted = Options(estimate_tokens=5 + 9 * seed)
    refused = store.one(request(tenant, "r", options=wanted), p)
    if isinstance(refused, Admitted):
        refused = store.one(request(tenant, "r2", options=Options(estimate_tokens=50)), p)
        wanted = Options(estimate_tokens=50)
    assert isinstance(refused, LimitHit)
    assert refused.retry_after_ms is not None
    store.now += refused.retry_after_ms - 1
    assert isinstance(store.one(request(tenant, "soon", options=wanted), p), LimitHit)
    store.now += 1
    assert isinstance(store.one(request(tenant, "then", options=wanted), p), Admitted)


def test_a_log_frees_to_the_millisecond(store: Store) -> None:
    """A unit charged at t is free again at t + window + 1, whatever bucket that would be."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(2, algorithm=Algorithm.LOG)])
    store.one(request(tenant, "1"), p)
    store.now += 17
    store.one(request(tenant, "2"), p)
    assert store.one(request(tenant, "3"), p) == LimitHit(0, MINUTE - 17 + 1)
    store.now += MINUTE - 17 + 1
    assert isinstance(store.one(request(tenant, "3"), p), Admitted)
    assert store.one(request(tenant, "4"), p) == LimitHit(0, 17)


def test_a_log_remembers_only_so_much(store: Store) -> None:
    """10,000 charges fill it, however few units they are; it admits again when the oldest has left."""
    tenant = store.tenant()
    of = per_tenant(10**9, resource=TOKENS, algorithm=Algorithm.LOG)
    p, key = policy("a", limits=[of]), store.of(tenant).log(of.entry + b":")
    charges = {struct.pack(">QQd", i, 0, 1): float(store.now - 10_000 + i) for i in range(10_000)}
    store.client.zadd(key, {b"t" + struct.pack(">d", 10_000): float("-inf")} | charges)
    store.now += 10_000
    refused = store.one(request(tenant, "r", options=Options(estimate_tokens=1)), p)
    assert refused == LimitHit(0, MINUTE - 20_000 + 1)
    store.now += MINUTE - 20_000 + 1
    assert isinstance(store.one(request(tenant, "r", options=Options(estimate_tokens=1)), p), Admitted)


def test_a_log_lives_as_long_as_its_window(store: Store) -> None:
    """And a second: Redis drops it by itself."""
    tenant, of = store.tenant(), per_tenant(2, algorithm=Algorithm.LOG)
    store.one(request(tenant, "1"), policy("a", limits=[of]))
    ttl: object = store.client.pttl(store.of(tenant).log(of.entry + b":"))
    assert isinstance(ttl, int)
    assert MINUTE - 5_000 < ttl <= MINUTE + 1_000


# Scopes and units


def test_users_have_counters_of_their_own(store: Store) -> None:
    """One user's usage is not another's; requests without a user share one counter."""
    tenant = store.tenant()
    p = policy("a", limits=[limit("u", Scope.USER, REQUESTS, 1, MINUTE)])
    users = ("ann", "ann", "bob", None, None)
    outcomes = [store.one(request(tenant, f"r{i}", user=u), p) for i, u in enumerate(users)]
    assert [isinstance(o, Admitted) for o in outcomes] == [True, False, True, True, False]


def test_tenants_have_counters_of_their_own(store: Store) -> None:
    """One tenant's usage is not another's."""
    limits = [per_tenant(1)]
    assert [admitted(store, store.tenant(), limits, 2) for _ in range(3)] == [1, 1, 1]


def test_a_tenant_limit_is_shared_by_its_policies(store: Store) -> None:
    """The tenant's counter is one over all policies; a policy's is its own."""
    tenant = store.tenant()
    shared, own = per_tenant(3), limit("own", Scope.POLICY, REQUESTS, 2, MINUTE)
    policies = [policy("a", limits=[shared, own], policy_id=n) for n in ("x", "x", "x", "y", "y")]
    outcomes = [store.one(request(tenant, f"r{i}", policy_id=p.policy_id), p) for i, p in enumerate(policies)]
    assert [isinstance(o, Admitted) for o in outcomes] == [True, True, False, True, False]
    assert outcomes[2].charge == 1  # type: ignore[union-attr]
    assert outcomes[4].charge == 0  # type: ignore[union-attr]


def test_a_used_up_provider_is_passed_over(store: Store) -> None:
    """A provider limit sends the next request to the next candidate; its counter is the provider's own."""
    tenant = store.tenant()
    p = policy("a", "b", limits=[limit("v", Scope.PROVIDER, REQUESTS, 1, MINUTE)])
    first, second, third = (store.one(request(tenant, f"r{i}"), p) for i in range(3))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    assert [first.candidate, second.candidate] == [0, 1]
    assert second.verdicts == b"\x05\x01"
    assert third.verdicts == b"\x05\x05"  # type: ignore[union-attr]
    assert third.retry_after_ms is not None  # type: ignore[union-attr]


def test_who_is_passed_over_is_charged_nothing(store: Store) -> None:
    """A provider whose tokens are used up has its requests left, however often it was passed over for another."""
    limits = [
        limit("requests", Scope.PROVIDER, Resource.REQUESTS, 3, 60 * MINUTE),
        limit("tokens", Scope.PROVIDER, Resource.TOKENS, 5, MINUTE),
    ]
    tenant, stored = store.tenant(), policy("a", "b", limits=limits)

    def chosen(name: str, tokens: int) -> int:
        made = store.one(request(tenant, name, options=Options(estimate_tokens=tokens)), stored)
        assert isinstance(made, Admitted)
        return made.candidate

    assert chosen("first", 5) == 0
    assert [chosen(f"passed-over-{n}", 1) for n in range(3)] == [1, 1, 1]
    store.now += 2 * MINUTE
    assert [chosen(f"later-{n}", 1) for n in range(2)] == [0, 0]


@pytest.mark.parametrize("resource", [TOKENS, COST])
def test_units_move_the_counter_by_units(store: Store, resource: Resource) -> None:
    """N units take N of the limit: after 7 of 10, three more pass and four do not."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(10, resource=resource)])

    def ask(request_id: str, units: int) -> bool:
        options = Options(estimate_tokens=units, estimate_cost_microusd=units)
        return isinstance(store.one(request(tenant, request_id, options=options), p), Admitted)

    assert [ask("7", 7), ask("4", 4), ask("3", 3), ask("1", 1)] == [True, False, True, False]


def test_a_changed_limit_keeps_its_usage(store: Store) -> None:
    """The counter belongs to limit and window, not to the revision."""
    tenant = store.tenant()
    assert admitted(store, tenant, [per_tenant(5)], 5) == 5
    assert admitted(store, tenant, [per_tenant(8)], 8, start=10) == 3
    assert admitted(store, tenant, [per_tenant(2)], 1, start=30) == 0


def test_an_unnamed_limit_survives(store: Store) -> None:
    """A limit that a revision leaves out is still counted when the next one names it again, within its window."""
    tenant = store.tenant()
    assert admitted(store, tenant, [per_tenant(3)], 3) == 3
    other = limit("other", Scope.TENANT, REQUESTS, 100, MINUTE)
    store.now += MINUTE // 2
    assert admitted(store, tenant, [other], 4, start=10) == 4
    assert admitted(store, tenant, [per_tenant(3)], 1, start=20) == 0


def test_a_limit_that_has_ended_is_dropped(store: Store) -> None:
    """Past its window an unnamed limit takes no room in the string."""
    tenant = store.tenant()
    admitted(store, tenant, [per_tenant(3)], 3)
    other = limit("other", Scope.TENANT, REQUESTS, 100, MINUTE)
    admitted(store, tenant, [other], 1, start=10)
    both = len(store.value(store.of(tenant).state) or b"")
    store.now += 2 * MINUTE
    admitted(store, tenant, [other], 1, start=20)
    assert len(store.value(store.of(tenant).state) or b"") < both


def test_shadow_limits_refuse_nothing(store: Store) -> None:
    """A limit in shadow mode counts, admits, and is named by its index among the plan's charges."""
    tenant = store.tenant()
    p = policy("a", limits=[limit("real", Scope.TENANT, REQUESTS, 9, MINUTE), per_tenant(1, MINUTE * 2, shadow=True)])
    first, second = store.one(request(tenant, "1"), p), store.one(request(tenant, "2"), p)
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    assert (first.shadow, second.shadow) == ((), (1,))


def test_a_providers_shadow_limit_is_not_taken_for_the_tenants(store: Store) -> None:
    """Shadow indexes of the chosen candidate's limits come after those of the plan's charges."""
    tenant = store.tenant()
    limits = [
        limit("real", Scope.TENANT, REQUESTS, 9, MINUTE),
        limit("shade", Scope.PROVIDER, REQUESTS, 0, MINUTE, shadow=True),
    ]
    made = store.one(request(tenant, "1"), policy("a", limits=limits))
    assert isinstance(made, Admitted)
    assert made.shadow == (1,)


# Leases


def test_a_lease_holds_its_slot_until_it_expires(store: Store) -> None:
    """A lost lease frees itself at its deadline, not before, and retry_after says when."""
    tenant = store.tenant()
    p = policy("a", limits=[limit("c", Scope.TENANT, CONCURRENCY, 1, 0)])
    options = Options(deadline_ms=10_000)
    assert isinstance(store.one(request(tenant, "1", options=options), p), Admitted)
    store.now += 4_000
    assert store.one(request(tenant, "2", options=options), p) == LimitHit(0, 6_000)
    store.now += 5_999
    assert store.one(request(tenant, "2", options=options), p) == LimitHit(0, 1)
    store.now += 1
    assert isinstance(store.one(request(tenant, "2", options=options), p), Admitted)


def test_leases_have_a_time_to_live(store: Store) -> None:
    """The set of leases goes away by itself, and lives as long as its longest lease."""
    tenant = store.tenant()
    one = limit("c", Scope.TENANT, CONCURRENCY, 9, 0)
    p = policy("a", limits=[one])
    key = store.of(tenant).lease(one.entry + b":")
    for i, deadline in enumerate((30_000, 90_000, 20_000)):
        store.one(request(tenant, f"{i}", options=Options(deadline_ms=deadline)), p)
    ttl: object = store.client.pttl(key)
    assert isinstance(ttl, int)
    assert 80_000 < ttl <= 91_000


def test_a_full_provider_is_passed_over(store: Store) -> None:
    """max_concurrency sends the next request to the next candidate, and frees itself."""
    tenant = store.tenant()
    p = policy(provider("a", priority=9, max_concurrency=1), "b")
    options = Options(deadline_ms=10_000)
    outcomes = [store.one(request(tenant, f"r{i}", options=options), p) for i in range(2)]
    assert [o.candidate for o in outcomes] == [0, 1]  # type: ignore[union-attr]
    assert outcomes[1].verdicts == b"\x04\x01"  # type: ignore[union-attr]
    store.now += 10_000
    third = store.one(request(tenant, "r2", options=options), p)
    assert third.candidate == 0  # type: ignore[union-attr]


def test_when_a_providers_slot_is_due(store: Store) -> None:
    """No provider has a slot: the refusal says when the first one is due."""
    tenant = store.tenant()
    p = policy(provider("a", max_concurrency=1), provider("b", max_concurrency=1))
    for i, deadline in enumerate((10_000, 7_000)):
        store.one(request(tenant, f"r{i}", options=Options(deadline_ms=deadline)), p)
    refused = store.one(request(tenant, "r2"), p)
    assert refused.verdicts == b"\x04\x04"  # type: ignore[union-attr]
    assert refused.retry_after_ms == 7_000  # type: ignore[union-attr]


def test_a_lowered_bound_says_when_there_is_room(store: Store) -> None:
    """More leases than a limit or a provider may have by now: told is when enough of them end, not the first one."""
    tenant = store.tenant()

    def bound(maximum: int) -> StoredPolicy:
        return policy(
            provider("a", max_concurrency=maximum), limits=[limit("c", Scope.TENANT, CONCURRENCY, maximum, 0)]
        )

    for i, deadline in enumerate((20_000, 5_000, 10_000)):
        store.one(request(tenant, f"{i}", options=Options(deadline_ms=deadline)), bound(3))
    for narrow in (bound(2), policy(provider("a", max_concurrency=2))):
        refused = store.one(request(tenant, "more"), narrow)
        assert refused.retry_after_ms == 10_000  # type: ignore[union-attr]
    store.now += 9_999
    assert store.one(request(tenant, "more"), bound(2)) == LimitHit(0, 1)
    store.now += 1
    assert isinstance(store.one(request(tenant, "more"), bound(2)), Admitted)


# Time


def test_a_late_row_writes_nothing(store: Store) -> None:
    """After its not_after a row leaves no key at all; at that very moment it still runs."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(5)])
    assert store.one(request(tenant, "r"), p, not_after=store.now - 1) == Unavailable(sent=False)
    assert store.stamps == [bytes(8)]
    assert store.audit(tenant) == []
    assert store.value(store.of(tenant).state) is None
    assert isinstance(store.one(request(tenant, "r"), p, not_after=store.now), Admitted)


def test_a_clock_that_steps_back_admits_no_more(store: Store) -> None:
    """Usage stays counted while the clock is behind, for a window from there on."""
    tenant = store.tenant()
    limits = [per_tenant(3)]
    assert admitted(store, tenant, limits, 2) == 2
    store.now -= 10 * MINUTE
    assert admitted(store, tenant, limits, 3, start=10) == 1
    store.now += MINUTE
    assert admitted(store, tenant, limits, 1, start=20) == 0
    store.now += 2 * -(-MINUTE // 11)
    assert admitted(store, tenant, limits, 4, start=30) == 3


@given(used=some.integers(1, 20), window=some.sampled_from([MINUTE, 61_003, 3_600_000]), at=some.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_units_leave_after_the_window(either_at_once: Store, used: int, window: int, at: int) -> None:
    """Units charged at t count until t + W and are gone by t + 12·ceil(W/11)."""
    store = either_at_once
    tenant = store.tenant()
    store.now = START_MS + at
    limits = [per_tenant(used, window)]
    assert admitted(store, tenant, limits, used + 1) == used
    store.now += window
    assert admitted(store, tenant, limits, 1, start=100) == 0
    store.now = START_MS + at + 12 * -(-window // 11)
    assert admitted(store, tenant, limits, used + 1, start=200) == used


# Heads


def test_every_row_tells_the_stamp(store: Store) -> None:
    """The head's stamp comes with an answer, a replay and a refusal alike; zeros when there is no head."""
    with_head, without = store.tenant(), store.tenant()
    store.client.set(store.of(with_head).head, head())
    full = policy("a", limits=[per_tenant(1)])
    store.decide(
        Ask(request(with_head, "1"), full),
        Ask(request(with_head, "1"), full),
        Ask(request(with_head, "1", same_as="another"), full),
        Ask(request(with_head, "2"), full),
        Ask(request(without, "1"), full),
    )
    assert store.stamps == [b"\x00\x00\x00\x07rand"] * 4 + [bytes(8)]


def test_a_tenant_that_is_off_gets_nothing_new(store: Store) -> None:
    """Fresh requests are refused and audited; an old answer is still told; others are not concerned."""
    tenant, other = store.tenant(), store.tenant()
    p = policy("a", limits=[per_tenant(5)])
    store.one(request(tenant, "old"), p)
    state = store.value(store.of(tenant).state)
    store.client.set(store.of(tenant).head, head(off=1))
    outcomes = store.decide(
        Ask(request(tenant, "new"), p), Ask(request(tenant, "old"), p), Ask(request(other, "new"), p)
    )
    assert [type(o) for o in outcomes] == [TenantOff, Replay, Admitted]
    assert store.value(store.of(tenant).state) == state
    assert store.audit(tenant)[-1].details["refusal"] == "tenant_off"


# Dispatch


def test_a_pushed_row_leaves_record_job_and_due(store: Store) -> None:
    """An admitted pushed row has a delivery record, keeps its work item and is due after the publish grace."""
    tenant = store.tenant()
    made = store.one(request(tenant, "r", push=True, options=Options(deadline_ms=30_000)), policy("a"), b"work")
    assert isinstance(made, Admitted)
    task = task_id(made.decision_id)
    record = store.record(task)
    assert record is not None
    assert (record.state, record.attempt, record.decision_id) == (TaskState.NEW, 1, made.decision_id)
    assert (record.charged_ms, record.deadline_at_ms) == (store.now, store.now + 30_000)
    assert (record.provider_id, record.facts.tenant_id) == ("a", tenant)
    keys = store.of(tenant)
    assert store.value(keys.job(task)) == b"work"
    ttl: object = store.client.pttl(keys.job(task))
    assert isinstance(ttl, int)
    assert ttl > 300_000
    due: object = store.client.zscore(keys.due, task)
    assert due == store.now + 3_000


def test_a_pushed_row_without_its_work_item_is_a_fault(store: Store) -> None:
    """Nothing is decided, charged or due when the work item has gone."""
    tenant = store.tenant()
    p = policy("a", limits=[per_tenant(5)])
    batch = store.batch([Ask(request(tenant, "r", push=True), p, b"work")])
    store.client.delete(*(key for key, _ in batch.jobs))
    reply = store.call(store.decide_script, list(batch.index), [store.header(), *batch.rows])
    (fault,) = store.read(batch, reply)
    assert "work item" in fault.message  # type: ignore[union-attr]
    keys = store.of(tenant)
    assert store.value(keys.state) is None
    assert store.client.zcard(keys.due) == 0


@pytest.mark.parametrize(("early_ms", "runs"), [(0, True), (1, False)])
def test_a_call_has_a_deadline_of_its_own(store: Store, early_ms: int, runs: bool) -> None:
    """Rows may wait longer in a busy pod, but a call that comes after its deadline writes nothing for any of them."""
    tenant = store.tenant()
    batch = store.batch([Ask(request(tenant, "r"), policy("a", limits=[per_tenant(5)]))])
    reply = store.call(store.decide_script, list(batch.index), [store.header(store.now - early_ms), *batch.rows])
    (outcome,) = store.read(batch, reply)
    assert isinstance(outcome, Admitted) is runs
    assert (store.value(store.of(tenant).state) is not None) is runs
