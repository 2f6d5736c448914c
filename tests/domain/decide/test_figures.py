"""Live figures: how they and the policy's become one, and what `best_score` makes of them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from router.domain.decide.decision import Verdict
from router.domain.decide.figures import NO_FIGURES, Live, Snapshot, latency_and_cost, shares_by_score
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import Constraints, DecideRequest
from router.domain.policy.model import Policy, Provider, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import Selection
from router.domain.tasks.result import ExecResult, Measurements, ResultStatus, taught

NAMES = "abcd"
SLOW = Live(10_000, 32, 0, 0)
LIVES = some.builds(Live, some.floats(0, 1e9), some.floats(0.001, 32), some.floats(0, 1e9), some.floats(0.001, 32))
SNAPSHOTS = some.builds(
    Snapshot,
    some.integers(1, 2**53),
    some.dictionaries(some.sampled_from(NAMES).map(provider_entry), LIVES, min_size=1),
)


def best(*providers: Provider) -> StoredPolicy:
    """A policy that takes the best score."""
    return StoredPolicy("default", 1, "0" * 16, Policy(providers, selection=Selection.BEST_SCORE))


def pool(*latencies: int) -> tuple[Provider, ...]:
    """Providers a, b, c … of these latencies."""
    return tuple(provider(n, expected_latency_ms=x) for n, x in zip(NAMES, latencies, strict=False))


def snapshot(**live: Live) -> Snapshot:
    """Live figures by name."""
    return Snapshot(7, {provider_entry(name): x for name, x in live.items()})


def ask(request_id: str = "r", **more: object) -> DecideRequest:
    """A request of one tenant."""
    return DecideRequest("acme", request_id, "default", "chat", bytes(8), **more)  # type: ignore[arg-type]


def names(planned: Plan) -> str:
    """Candidates in their order."""
    return "".join(c.provider.name for c in planned.candidates)


def firsts(policy: StoredPolicy, live: Snapshot, count: int = 2_000) -> Counter[str]:
    """Who is preferred by how many requests."""
    return Counter(names(plan(ask(f"{i}"), policy, snapshot=live))[0] for i in range(count))


@given(live=LIVES, latency=some.integers(1, 10**9), cost=some.integers(1, 10**9))
def test_a_figure_lies_between_the_policys_and_the_live_one(live: Live, latency: int, cost: int) -> None:
    """Both halves of the figure are within what policy and results say."""
    p = provider("a", expected_latency_ms=latency, expected_cost_microusd=cost)
    for figure, own, seen in zip(
        latency_and_cost(p, snapshot(a=live)), (latency, cost), (live.latency_ms, live.cost_microusd), strict=True
    ):
        assert round(min(own, seen)) <= figure <= round(max(own, seen))


def test_one_result_counts_as_much_as_the_policy() -> None:
    """The documented formula: (weight × live + the policy's) / (weight + 1)."""
    p = provider("a", expected_latency_ms=100, expected_cost_microusd=10)
    assert latency_and_cost(p, snapshot(a=Live(300, 1, 40, 2))) == (200, 30)
    assert latency_and_cost(p, snapshot(a=Live(300, 1, 0, 0))) == (200, 10)
    assert latency_and_cost(p, snapshot(b=Live(300, 1, 40, 2))) == (100, 10)


def test_without_a_figure_of_the_policy_the_live_one_stands_alone() -> None:
    """Nothing is known but what results say."""
    assert latency_and_cost(provider("a"), snapshot(a=Live(300, 0.5, 40, 0.5))) == (300, 40)


@given(live=SNAPSHOTS, wanted=some.text(min_size=1, max_size=8))
def test_the_same_snapshot_orders_alike_on_every_pod(live: Snapshot, wanted: str) -> None:
    """Two pods that compile the policy by themselves plan the same, whatever snapshots they have had before."""
    one, other = best(*pool(100, 105, 300, 0)), best(*pool(100, 105, 300, 0))
    plan(ask("before"), one, snapshot=Snapshot(3, {provider_entry("b"): SLOW}))
    mine = plan(ask(wanted), one, snapshot=live)
    its = plan(ask(wanted), other, snapshot=Snapshot(live.version, live.live))
    assert mine.candidates == its.candidates
    assert mine.figures_version == live.version


@given(live=SNAPSHOTS)
def test_who_is_clearly_worse_comes_after_who_is_better(live: Snapshot) -> None:
    """Nobody more than a tenth above the best is first, and behind the near ones all come by score."""
    policy = best(*pool(100, 105, 300, 0))
    scores = [sum(latency_and_cost(p, live)) for p in policy.policy.pool]
    near = sum(s == min(scores) or s < 1.1 * min(scores) for s in scores)
    for i in range(20):
        found = [sum(latency_and_cost(c.provider, live)) for c in plan(ask(f"{i}"), policy, snapshot=live).candidates]
        assert sorted(found) == sorted(scores)
        assert max(found[:near]) <= 1.1 * min(scores)
        assert found[near:] == sorted(found[near:])


def test_a_slow_provider_loses_its_traffic() -> None:
    """Results of 10 s move everything to the one that answers in 200 ms."""
    assert firsts(best(*pool(100, 200)), snapshot(a=SLOW)) == {"b": 2_000}


@pytest.mark.heavy
def test_a_slow_provider_comes_back() -> None:
    """Without results its weight halves: after a hundredfold latency it has its half again within ten minutes."""
    policy = best(*pool(100, 100))
    shares = []
    for five_seconds in range(6 * 18 + 1):
        live = snapshot(a=SLOW._replace(latency_weight=32 / 2 ** (five_seconds / 6)), b=Live(100, 32, 0, 0))
        shares.append(firsts(policy, live, 500)["a"] / 500)
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] > 0.4
    # Not at once: the first to try it are a few.
    assert 0 < next(s for s in shares if s) < 0.15


def test_near_ones_share_and_nobody_runs_with_the_herd() -> None:
    """A provider 5 % worse gets a third of the traffic, one that is 11 % worse nothing; equal ones share by weight."""
    policy = best(*pool(1_000, 1_000))
    near = firsts(policy, snapshot(a=Live(1_000, 32, 0, 0), b=Live(1_051.6, 32, 0, 0)), 10_000)
    assert near["b"] == pytest.approx(3_333, abs=300)
    far = firsts(policy, snapshot(a=Live(1_000, 32, 0, 0), b=Live(1_114, 32, 0, 0)))
    assert far == {"a": 2_000}


def test_without_live_figures_the_order_is_strict() -> None:
    """Nothing feeds back: the better figures of the policy are always first, however near the others are."""
    assert firsts(best(*pool(101, 100, 102)), NO_FIGURES) == {"b": 2_000}


def test_tiers_come_before_scores() -> None:
    """However slow the higher tier has become, it is asked first."""
    policy = best(provider("a", priority=1, expected_latency_ms=100), provider("b", expected_latency_ms=1))
    assert names(plan(ask(), policy, snapshot=snapshot(a=SLOW))) == "ab"


@given(live=SNAPSHOTS)
def test_ranks_are_a_whole_order(live: Snapshot) -> None:
    """Every provider has a place once, and its weight stays above nothing."""
    shares = shares_by_score(pool(100, 105, 300, 0), live)
    assert sorted(i for _, _, _, i in shares) == [0, 1, 2, 3]
    assert [rank for rank, *_ in shares] == sorted(rank for rank, *_ in shares)
    assert all(weight > 0 for _, weight, _, _ in shares)


def test_constraints_look_at_the_refined_figures() -> None:
    """What has become too slow or too dear is passed over, and what has become quick enough is not."""
    policy = StoredPolicy("default", 1, "0" * 16, Policy(pool(100, 900)))
    bounds = ask(constraints=Constraints(max_latency_ms=500))
    live = snapshot(a=Live(2_000, 32, 0, 0), b=Live(100, 32, 0, 0))
    assert names(plan(bounds, policy)) == "a"
    moved = plan(bounds, policy, snapshot=live)
    assert names(moved) == "b"
    assert [(p.provider_id, p.verdict) for p in moved.passed_over] == [("a", Verdict.CONSTRAINT)]


def test_remembered_orders_are_of_one_snapshot() -> None:
    """Alternating snapshots never get each other's figures, and an unchanged one gets the very same candidates."""
    policy = StoredPolicy("default", 1, "0" * 16, Policy(pool(100)))
    one, other = snapshot(a=Live(300, 1, 0, 0)), snapshot(a=Live(500, 1, 0, 0))
    for live, expected in ((one, 200), (other, 300), (one, 200), (NO_FIGURES, 100)):
        assert plan(ask(), policy, snapshot=live).candidates[0].expected_latency_ms == expected
    assert plan(ask("1"), policy, snapshot=one).candidates is plan(ask("2"), policy, snapshot=one).candidates


@pytest.mark.parametrize("status", list(ResultStatus))
def test_only_a_success_teaches(status: ResultStatus) -> None:
    """How fast a provider fails says nothing of how fast it works."""
    result = ExecResult(status, latency_ms=5, cost_microusd=7)
    assert taught(result) == (Measurements(5, 7) if status is ResultStatus.SUCCESS else Measurements())
