"""Breakers of a tenant that is idle: a trip is remembered until probes close the breaker, or for a day."""

import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, NoCandidate, Outcome
from router.domain.decide.request import Options
from router.domain.policy.model import Breaker, StoredPolicy, provider_entry
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import BreakerTurn, Moved
from tests.store.harness import MINUTE, Store, policy, request, undispatched

DAY = 24 * 60 * MINUTE
IN_A_ROW = Breaker(failure_threshold=3, minimum_requests=1_000, half_open_max_calls=2)
BY_RATE = Breaker(failure_threshold=1_000, minimum_requests=4, half_open_max_calls=2)
KINDS = {
    "3 s": replace(IN_A_ROW, timeout_ms=3_000, error_rate_window_ms=1_000),
    "minute": replace(IN_A_ROW, timeout_ms=MINUTE),
    "hour": replace(IN_A_ROW, timeout_ms=60 * MINUTE),
    "rate": replace(BY_RATE, timeout_ms=5_000, error_rate_window_ms=10_000),
    "long window": replace(BY_RATE, timeout_ms=1_000, error_rate_window_ms=60 * MINUTE),
}


class Tenant:
    """A tenant with one provider."""

    def __init__(self, store: Store, breaker: Breaker) -> None:
        self.store = store
        self.breaker = breaker
        self.stored: StoredPolicy = policy("a", breaker=breaker)
        self.id = store.tenant()
        self.asked = 0

    def ask(self, deadline_ms: int = 5_000) -> Outcome:
        """A fresh request."""
        self.asked += 1
        return self.store.one(request(self.id, f"r{self.asked}", options=Options(deadline_ms=deadline_ms)), self.stored)

    def report(self, outcome: Outcome, verdict: BreakerVerdict) -> BreakerTurn:
        """The result of a decision."""
        assert isinstance(outcome, Admitted), outcome
        move = undispatched(self.id, outcome.decision_id, verdict, self.breaker, provider_entry("a"))
        (moved,) = self.store.settle(move)
        assert isinstance(moved, Moved)
        return moved.turn

    def trip(self) -> None:
        """As many failures as open the breaker."""
        while self.report(self.ask(), BreakerVerdict.FAILURE) is not BreakerTurn.OPENED:
            assert self.asked < 10

    def idle(self, ms: int) -> None:
        """Time passes; Redis drops the state when its life time is over."""
        if self.expires_in() <= ms:
            self.store.client.delete(self.store.of(self.id).state)
        self.store.now += ms

    def expires_in(self) -> int:
        """Life time of the tenant's state, in ms."""
        left: int = self.store.client.pttl(self.store.of(self.id).state)
        return left


@pytest.fixture(params=KINDS)
def broken(request: pytest.FixtureRequest, store: Store) -> Tenant:
    """A tenant whose breaker has just opened."""
    tenant = Tenant(store, KINDS[request.param])
    tenant.trip()
    return tenant


@pytest.mark.parametrize("idle", [0, 1.1, 1.7, 20, "day"])
def test_an_idle_tenant_comes_back_to_probes(broken: Tenant, idle: float | str) -> None:
    """However long it was idle, up to a day: half_open_max_calls requests are probes, and the others are refused."""
    timeout = broken.breaker.timeout_ms
    broken.idle(timeout + (DAY - MINUTE if isinstance(idle, str) else int(idle * timeout)))
    first, second = broken.ask(), broken.ask()
    assert isinstance(broken.ask(), NoCandidate)
    assert broken.report(first, BreakerVerdict.FAILURE) is BreakerTurn.OPENED
    assert isinstance(broken.ask(), NoCandidate)
    assert broken.report(second, BreakerVerdict.SUCCESS) is BreakerTurn.UNCHANGED


def test_after_a_day_it_is_forgotten(broken: Tenant) -> None:
    """A day after probes were due: the state has expired in Redis."""
    broken.idle(broken.breaker.timeout_ms + DAY)
    assert all(isinstance(broken.ask(), Admitted) for _ in range(4))


def test_a_half_open_breaker_is_kept_as_long(broken: Tenant) -> None:
    """Probes whose results never came say nothing: the next requests are probes again, hours later."""
    broken.idle(broken.breaker.timeout_ms)
    assert isinstance(broken.ask(), Admitted)
    broken.idle(20 * 60 * MINUTE)
    broken.ask(), broken.ask()
    assert isinstance(broken.ask(), NoCandidate)


def test_a_closed_breaker_is_kept_no_longer_than_before(broken: Tenant) -> None:
    """Two good probes close it; then only its window and its slow start have to be remembered."""
    broken.idle(broken.breaker.timeout_ms)
    turns = [broken.report(broken.ask(), BreakerVerdict.SUCCESS) for _ in range(2)]
    assert turns[-1] is BreakerTurn.CLOSED
    slow_start = min(broken.breaker.timeout_ms, 10_000)
    assert broken.expires_in() <= max(broken.breaker.error_rate_window_ms, slow_start)


def test_the_slow_start_follows_the_idle_time(store: Store) -> None:
    """Probes of a tenant that came back close the breaker, and its share grows from a tenth, as it always does."""
    tenant = Tenant(store, KINDS["3 s"])
    tenant.trip()
    tenant.idle(60 * MINUTE)
    for _ in range(2):
        tenant.report(tenant.ask(), BreakerVerdict.SUCCESS)
    tenant.stored = policy("a", "b", breaker=tenant.breaker)
    chosen = [outcome.candidate for outcome in (tenant.ask() for _ in range(20)) if isinstance(outcome, Admitted)]
    assert len(chosen) == 20
    assert chosen.count(1) > 10
