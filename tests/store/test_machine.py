"""Random walks against small models: limits, idempotency, pins and leases; breakers with settled results; the window.

The short runs are part of every test run; `long` repeats them with 300,000 steps.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine
from redis import Redis, RedisCluster

from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.decide.request import Options
from router.domain.policy.limits import limit
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from tests.store.harness import START_MS, Store, policy, request
from tests.store.machine import LONG, QUIET, SHORT, Breakers, Decisions, model_of, run, worst


def test_decisions_follow_the_model(single: Redis) -> None:
    """Limits, idempotency, pins and leases: two thousand steps do what the model says."""
    run(Decisions, single, SHORT, minimum=2_000)


@pytest.mark.parametrize("machine", [Decisions, Breakers])
def test_the_models_hold_on_a_cluster(cluster: RedisCluster, machine: type[RuleBasedStateMachine]) -> None:
    """The same over three nodes, where each tenant's keys lie in a slot of their own."""
    run(machine, cluster, settings(SHORT, max_examples=25), minimum=800)


def test_breakers_follow_the_model(single: Redis) -> None:
    """Breakers with settled results: two thousand steps do what the model says."""
    run(Breakers, single, SHORT, minimum=2_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_decisions_follow_the_model_for_long(single: Redis) -> None:
    """The same for 300,000 steps."""
    run(Decisions, single, LONG, minimum=300_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_breakers_follow_the_model_for_long(single: Redis) -> None:
    """The same for 300,000 steps."""
    run(Breakers, single, LONG, minimum=300_000)


# The window

ARRIVALS = some.tuples(
    some.sampled_from([60_000, 61_003, 90_001, 3_600_000]),
    some.integers(1, 12),
    some.integers(0, 400_000),
    some.lists(some.tuples(some.floats(0, 0.4), some.integers(1, 4)), min_size=20, max_size=80),
    some.sampled_from(Algorithm),
)


def holds(
    store: Store, window: int, maximum: int, start: int, arrivals: list[tuple[float, int]], algorithm: Algorithm
) -> None:
    """No window of that length admits more, and what is refused would have been too much for the model."""
    tenant = store.tenant()
    store.now = START_MS + start
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.TOKENS, maximum, window, algorithm=algorithm)])
    model = model_of(p.policy.limits[0])
    for i, (gap, units) in enumerate(arrivals):
        store.now += int(gap * gap * window)
        outcome = store.one(request(tenant, f"r{i}", options=Options(estimate_tokens=units)), p)
        assert isinstance(outcome, Admitted) == model.fits(units, store.now), (i, outcome)
        if isinstance(outcome, Admitted):
            model.charge(units, store.now)
        elif units > maximum:
            assert outcome == LimitHit(0, None)
    assert worst(model.admitted, window) <= maximum


@given(case=ARRIVALS)
@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
def test_retry_after_is_true(either_at_once: Store, case: Any) -> None:
    """After any arrivals: who is refused is admitted at the moment it was told, and not a millisecond before."""
    window, maximum, start, arrivals, algorithm = case
    store, tenant = either_at_once, either_at_once.tenant()
    store.now = START_MS + start
    p = policy("a", limits=[limit("l", Scope.TENANT, Resource.TOKENS, maximum, window, algorithm=algorithm)])
    for i, (gap, units) in enumerate(arrivals):
        store.now += int(gap * gap * window)
        asked = [request(tenant, f"r{i}-{n}", options=Options(estimate_tokens=units)) for n in range(3)]
        outcome = store.one(asked[0], p)
        if isinstance(outcome, LimitHit) and outcome.retry_after_ms is not None:
            store.now += outcome.retry_after_ms - 1
            assert isinstance(store.one(asked[1], p), LimitHit)
            store.now += 1
            assert isinstance(store.one(asked[2], p), Admitted)
        else:
            assert isinstance(outcome, Admitted) or units > maximum


@given(case=ARRIVALS)
@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
def test_no_window_admits_more(either_at_once: Store, case: Any) -> None:
    """For any arrivals: no window of length W ever admits more than L units."""
    holds(either_at_once, *case)


@pytest.mark.long
@pytest.mark.timeout(1800)
@given(case=ARRIVALS)
@settings(max_examples=3_000, deadline=None, suppress_health_check=QUIET)
def test_no_window_admits_more_for_long(either_at_once: Store, case: Any) -> None:
    """The same for more than 100,000 arrivals."""
    holds(either_at_once, *case)
