"""Redis' clock steps forward and back: limits, breakers, leases, probes and extensions on a real server.

`ClockSteps` is a state machine with two times: `store.now` is Redis' clock and steps, `real` is the time that passes.
The bounds that it holds are in real time.
"""

from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from redis import Redis

from router.domain.decide.decision import Verdict
from router.domain.decide.outcome import Admitted, LimitHit, NoCandidate, Outcome, Reservation
from router.domain.decide.request import Options
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Limit, provider, provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Correction, Moved
from tests.store import machine
from tests.store.harness import MINUTE, START_MS, Ask, Client, Store, policy, request, undispatched
from tests.store.machine import LONG, SHORT, drop

HOUR, DAY = 60 * MINUTE, 24 * 60 * MINUTE
YEAR = 365 * DAY
STEPS = [1, 20, 999, 2_727, 5_454, 5_455, 10_910, 20_000, MINUTE, 5 * MINUTE, 29 * MINUTE, 2 * HOUR, DAY, YEAR]
SLIDING = limit("sliding", Scope.TENANT, Resource.TOKENS, 30, MINUTE)
SLOW = limit("slow", Scope.USER, Resource.TOKENS, 60, 10 * MINUTE)
EXACT = limit("exact", Scope.TENANT, Resource.TOKENS, 40, 50_000, algorithm=Algorithm.LOG)
LIMITS = (SLIDING, SLOW, EXACT)


def correction(of: Limit, delta: int) -> Correction:
    """What a result changes of a limit."""
    owner = "anon" if of.scope is Scope.USER else ""
    log = of.algorithm is Algorithm.LOG
    return Correction(Reservation(of.scope, owner, of.resource, of.entry, of.window_ms, 0, log), owner, delta)


class Charge:
    """An admitted request: `net` is what its result has left of it, `latest` the last moment that it may count as."""

    def __init__(self, decision: bytes, units: int, real: int, clock: int) -> None:
        self.decision, self.units, self.real, self.clock = decision, units, real, clock
        self.net, self.latest, self.settled = units, real, False


def longest(of: Limit) -> int:
    """How long a charge may count: a window, and two bucket widths more (its own, and a clamped one)."""
    return of.window_ms + (1 if of.algorithm is Algorithm.LOG else 2 * -(-of.window_ms // 11))


class ClockSteps(RuleBasedStateMachine):
    """One tenant with limits of two windows and an exact one. Results correct what was charged."""

    client: Client

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(self.client)
        self.tenant = self.store.tenant()
        self.real = 0
        self.forward_at = -1
        self.charges: list[Charge] = []
        self.count = 0
        self.policy = policy("a", limits=LIMITS)

    def ask(self, *units: int) -> None:
        """Requests in one call, each held against both bounds."""
        asked = []
        for n in units:
            self.count += 1
            wanted = request(self.tenant, f"r{self.count}", user="anon", options=Options(estimate_tokens=n))
            asked.append(Ask(wanted, self.policy))
        for n, outcome in zip(units, self.store.decide(*asked), strict=True):
            self.answered(n, outcome)

    def answered(self, units: int, outcome: Outcome) -> None:
        """Holds an answer against the charges of before."""
        if isinstance(outcome, Admitted):
            for of in LIMITS:
                since = max(self.real - of.window_ms, self.forward_at)
                used = sum(c.net for c in self.charges if c.real >= since and c.real > self.forward_at)
                assert used + units <= of.limit, (of.id, used, units)
            self.charges.append(Charge(outcome.decision_id, units, self.real, self.store.now))
            return
        assert isinstance(outcome, LimitHit), outcome
        of = LIMITS[outcome.charge]
        assert outcome.retry_after_ms is not None
        assert 0 < outcome.retry_after_ms <= longest(of)
        used = sum(c.units for c in self.charges if c.latest > self.real - longest(of))
        assert used + units > of.limit, (of.id, used, units)

    @rule(units=some.lists(some.integers(1, 12), min_size=1, max_size=8))
    def several(self, units: list[int]) -> None:
        """Some requests; eight of the largest fill every limit."""
        self.ask(*units)

    @rule(ms=some.sampled_from([1, 500, 5_455, 11_000, 40_000, 61_000, 72_000, 10 * MINUTE, 29 * MINUTE, 2 * HOUR]))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.store.now += ms
        self.real += ms

    @rule(ms=some.sampled_from(STEPS))
    def forward(self, ms: int) -> None:
        """The clock steps forward; what that releases is not the router's fault."""
        self.store.now += ms
        self.forward_at = self.real
        self.real += 1
        self.store.now += 1

    @rule(ms=some.sampled_from(STEPS))
    def back(self, ms: int) -> None:
        """The clock steps back, and the tenant asks: what counts now counts for a window at most."""
        self.store.now -= ms
        for c in self.charges:
            c.latest = self.real
        self.ask(1)

    @precondition(lambda self: any(not c.settled for c in self.charges))
    @rule(data=some.data())
    def settle(self, data: some.DataObject) -> None:
        """A result within the longest deadline: fewer tokens than reserved, or more."""
        open_ = [c for c in self.charges if not c.settled and c.real > self.real - 30 * MINUTE]
        if not open_:
            return
        c = data.draw(some.sampled_from(open_[-8:]))
        delta = data.draw(some.integers(-c.units, 4))
        move = undispatched(
            self.tenant,
            c.decision,
            BreakerVerdict.NEITHER,
            charged_ms=c.clock,
            corrections=tuple(correction(of, delta) for of in LIMITS) if delta else (),
        )
        (moved,) = self.store.settle(move)
        if isinstance(moved, Moved):
            c.settled = True
            if delta < 0:
                c.net += delta
            elif delta > 0:
                overrun = Charge(c.decision, delta, self.real, self.store.now)
                overrun.settled = True
                self.charges.append(overrun)

    def teardown(self) -> None:
        """The server forgets the schema."""
        drop(self.store)


def test_clock_steps_hold_their_bounds(single: Redis) -> None:
    """Steps from 1 ms to a year, both ways: never above a limit but for what a forward step released; no refusal
    later than a window after.
    """
    machine.run(ClockSteps, single, settings(SHORT, max_examples=40), minimum=1_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_clock_steps_hold_their_bounds_for_long(single: Redis) -> None:
    """The same for 100,000 steps."""
    machine.run(ClockSteps, single, settings(LONG, max_examples=2_400), minimum=100_000)


class Shape(NamedTuple):
    """A limit, and how it is asked."""

    of: Limit
    user: str | None = None


SHAPES = {
    "tenant": Shape(limit("l", Scope.TENANT, Resource.REQUESTS, 5, MINUTE)),
    "user": Shape(limit("l", Scope.USER, Resource.REQUESTS, 5, MINUTE), "ann"),
    "policy": Shape(limit("l", Scope.POLICY, Resource.REQUESTS, 5, MINUTE)),
    "provider": Shape(limit("l", Scope.PROVIDER, Resource.REQUESTS, 5, MINUTE)),
    "exact": Shape(limit("l", Scope.TENANT, Resource.REQUESTS, 5, MINUTE, algorithm=Algorithm.LOG)),
    "a day": Shape(limit("l", Scope.TENANT, Resource.REQUESTS, 5, DAY)),
}


def admitted(store: Store, tenant: str, shape: Shape, count: int, at: str) -> int:
    """How many of so many requests pass."""
    p = policy("a", limits=[shape.of])
    asked = [request(tenant, f"{at}{i}", user=shape.user) for i in range(count)]
    return sum(isinstance(store.one(r, p), Admitted) for r in asked)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("ahead", [10_000, 10 * MINUTE, 2 * HOUR, YEAR])
def test_who_asked_meanwhile_is_refused_for_a_window_at_most(store: Store, shape: Shape, ahead: int) -> None:
    """Two hours ahead for three seconds, then right again: the incident, for every scope and several steps."""
    tenant = store.tenant()
    store.now += ahead
    assert admitted(store, tenant, shape, 9, "ahead") == 5
    store.now += 3_000 - ahead
    assert admitted(store, tenant, shape, 3, "back") == 0
    store.now += shape.of.window_ms - 6_000
    assert admitted(store, tenant, shape, 3, "inside") == 0
    store.now += longest(shape.of) - shape.of.window_ms + 6_001
    assert admitted(store, tenant, shape, 9, "after") == 5


def test_a_refused_request_moves_the_limit(store: Store) -> None:
    """A move that only admitted requests wrote would begin again with every refusal, and never end."""
    tenant, shape = store.tenant(), SHAPES["tenant"]
    store.now += 2 * HOUR
    admitted(store, tenant, shape, 5, "ahead")
    store.now -= 2 * HOUR
    for i in range(20):
        admitted(store, tenant, shape, 1, f"back{i}")
        store.now += 4_000
    assert admitted(store, tenant, shape, 1, "after") == 1


@pytest.mark.parametrize("ahead", [0, 1, 5_454])
def test_a_bucket_width_ahead_is_clamped(store: Store, ahead: int) -> None:
    """The newest bucket is charged as the present one; the string is written as before, without a note."""
    tenant, shape = store.tenant(), SHAPES["tenant"]
    store.now = START_MS - START_MS % 5_455 + 5_455
    admitted(store, tenant, shape, 2, "ahead")
    store.now -= ahead
    assert admitted(store, tenant, shape, 5, "back") == 3
    assert b"moved" not in (store.value(store.of(tenant).state) or b"")


def test_ages_stay_among_each_other(store: Store) -> None:
    """Charges of three moments leave in their order, with their distances, from the move on."""
    tenant, shape = store.tenant(), Shape(limit("l", Scope.TENANT, Resource.REQUESTS, 9, MINUTE))
    width = -(-MINUTE // 11)
    store.now = START_MS - START_MS % width
    for i in range(3):
        assert admitted(store, tenant, shape, 3, f"n{i}") == 3
        store.now += 2 * width
    store.now -= 2 * width + HOUR
    left = []
    for i in range(14):
        left.append(admitted(store, tenant, shape, 9, f"after{i}"))
        store.now += width
    assert [i for i, n in enumerate(left) if n] == [8, 10, 12]


TOKENS = limit("t", Scope.TENANT, Resource.TOKENS, 10, MINUTE)
EXACT_TOKENS = limit("t", Scope.TENANT, Resource.TOKENS, 10, MINUTE, algorithm=Algorithm.LOG)


def tokens(store: Store, tenant: str, of: Limit, name: str, units: int) -> Any:
    """The outcome of a request with an estimate."""
    return store.one(request(tenant, name, options=Options(estimate_tokens=units)), policy("a", limits=[of]))


def report(store: Store, tenant: str, made: Any, of: Limit, delta: int, charged: int) -> None:
    """The result of a request."""
    move = undispatched(
        tenant, made.decision_id, BreakerVerdict.NEITHER, charged_ms=charged, corrections=(correction(of, delta),)
    )
    assert isinstance(store.settle(move)[0], Moved)


@pytest.mark.parametrize("of", [TOKENS, EXACT_TOKENS], ids=["sliding", "exact"])
@pytest.mark.parametrize("step", [MINUTE, 10 * MINUTE, 2 * HOUR])
@pytest.mark.parametrize("later", [0, 1_000, MINUTE + 5_455, 10 * MINUTE, 10 * MINUTE + 5_000])
def test_a_result_gives_back_nothing_of_before_the_move(store: Store, of: Limit, step: int, later: int) -> None:
    """Its bucket now holds what others were charged: those units stay, whenever the result comes."""
    tenant = store.tenant()
    store.now += step
    charged = store.now
    ours = tokens(store, tenant, of, "ours", 4)
    store.now -= step
    assert isinstance(tokens(store, tenant, of, "at once", 6), Admitted)
    store.now += later
    while isinstance(tokens(store, tenant, of, f"others{store.now}", 1), Admitted):
        store.now += 1
    report(store, tenant, ours, of, -4, charged)
    assert isinstance(tokens(store, tenant, of, "more", 1), LimitHit)


@pytest.mark.parametrize("of", [TOKENS, EXACT_TOKENS], ids=["sliding", "exact"])
def test_a_result_of_after_the_move_gives_back(store: Store, of: Limit) -> None:
    """A step of two hours costs later requests nothing: their reservations go back as ever."""
    tenant = store.tenant()
    store.now += 2 * HOUR
    tokens(store, tenant, of, "ahead", 1)
    store.now -= 2 * HOUR
    tokens(store, tenant, of, "back", 1)
    store.now += 10
    charged = store.now
    later = tokens(store, tenant, of, "later", 8)
    assert isinstance(tokens(store, tenant, of, "full", 1), LimitHit)
    report(store, tenant, later, of, -8, charged)
    assert isinstance(tokens(store, tenant, of, "fits", 8), Admitted)


@pytest.mark.parametrize("of", [TOKENS, EXACT_TOKENS], ids=["sliding", "exact"])
def test_an_overrun_of_before_the_move_is_charged(store: Store, of: Limit) -> None:
    """It is charged now and names no bucket, so a move does not touch it."""
    tenant = store.tenant()
    store.now += 2 * HOUR
    charged = store.now
    ours = tokens(store, tenant, of, "ours", 4)
    store.now -= 2 * HOUR
    report(store, tenant, ours, of, 6, charged)
    assert isinstance(tokens(store, tenant, of, "more", 1), LimitHit)


def test_the_note_of_a_move_ends(store: Store) -> None:
    """A window and the longest deadline later the state is as small as before."""
    tenant = store.tenant()
    size = len(store.value(store.of(tenant).state) or b"")
    tokens(store, tenant, TOKENS, "first", 1)
    size = len(store.value(store.of(tenant).state) or b"")
    store.now -= 2 * HOUR
    tokens(store, tenant, TOKENS, "back", 1)
    noted = store.value(store.of(tenant).state) or b""
    assert len(noted) == size + 132
    store.now += 40 * MINUTE
    tokens(store, tenant, TOKENS, "later", 1)
    assert len(store.value(store.of(tenant).state) or b"") == size


def test_a_full_state_moves_without_a_note(store: Store) -> None:
    """255 limits that count leave no room: they are moved all the same."""
    tenant = store.tenant()
    store.now += 2 * HOUR
    for start in range(0, 255, 17):
        limits = [limit(f"l{i}", Scope.TENANT, Resource.REQUESTS, 1, MINUTE) for i in range(start, start + 17)]
        assert isinstance(store.one(request(tenant, f"r{start}"), policy("a", limits=limits)), Admitted)
    store.now -= 2 * HOUR
    assert isinstance(store.one(request(tenant, "back"), policy("a", limits=limits)), LimitHit)
    store.now += MINUTE + 2 * 5_455
    assert isinstance(store.one(request(tenant, "after"), policy("a", limits=limits)), Admitted)


BREAKER = Breaker(failure_threshold=1, timeout_ms=MINUTE, success_threshold=2, half_open_max_calls=1)


def result(store: Store, tenant: str, made: Any, verdict: BreakerVerdict) -> None:
    """A verdict on provider `a`."""
    assert isinstance(
        store.settle(undispatched(tenant, made.decision_id, verdict, BREAKER, provider_entry("a")))[0], Moved
    )


@pytest.mark.parametrize("step", [1_000, 10 * MINUTE, 2 * HOUR, YEAR])
def test_an_open_breaker_is_due_after_its_own_timeout(store: Store, step: int) -> None:
    """Opened ahead: from the first request after the step it stays open for its timeout, and no longer."""
    tenant, p = store.tenant(), policy("a", breaker=BREAKER)
    store.now += step
    result(store, tenant, store.one(request(tenant, "r"), p), BreakerVerdict.FAILURE)
    store.now -= step
    refused = store.one(request(tenant, "s"), p)
    assert isinstance(refused, NoCandidate)
    assert refused.retry_after_ms == MINUTE
    store.now += MINUTE - 1
    assert isinstance(store.one(request(tenant, "t"), p), NoCandidate)
    store.now += 1
    assert isinstance(store.one(request(tenant, "u"), p), Admitted)


@pytest.mark.parametrize("step", [10 * MINUTE, 2 * HOUR, YEAR])
def test_a_probe_ahead_blocks_nobody(store: Store, step: int) -> None:
    """The probe's result is lost: the next one goes out after its deadline, or at once."""
    tenant, p = store.tenant(), policy("a", breaker=BREAKER)
    store.now += step
    result(store, tenant, store.one(request(tenant, "r"), p), BreakerVerdict.FAILURE)
    store.now += MINUTE
    probe = request(tenant, "probe", options=Options(deadline_ms=5_000))
    assert isinstance(store.one(probe, p), Admitted)
    store.now -= step
    busy = store.one(request(tenant, "s"), p)
    if isinstance(busy, NoCandidate):
        assert Verdict(busy.verdicts[0]) is Verdict.PROBES_BUSY
        assert busy.retry_after_ms is not None
        assert busy.retry_after_ms <= MINUTE + 5_000
        store.now += busy.retry_after_ms
        assert isinstance(store.one(request(tenant, "t"), p), Admitted)
    else:
        assert isinstance(busy, Admitted)


def test_a_slow_start_ahead_ends(store: Store) -> None:
    """A breaker that closed ahead takes its whole share back after its slow start."""
    tenant, p = store.tenant(), policy("a", "b", breaker=BREAKER)
    store.now += 2 * HOUR
    result(store, tenant, store.one(request(tenant, "r"), p), BreakerVerdict.FAILURE)
    for i in range(2):
        store.now += MINUTE
        result(store, tenant, store.one(request(tenant, f"p{i}"), p), BreakerVerdict.SUCCESS)
    store.now -= 2 * HOUR
    chosen = [store.one(request(tenant, f"s{i}"), p) for i in range(20)]
    assert {c.candidate for c in chosen if isinstance(c, Admitted)} == {0, 1}
    store.now += 10_000
    later = [store.one(request(tenant, f"t{i}"), p) for i in range(20)]
    assert {c.candidate for c in later if isinstance(c, Admitted)} == {0}


@pytest.mark.parametrize("of", ["limit", "provider"])
def test_leases_ahead_end_after_a_deadline(store: Store, of: str) -> None:
    """Leases whose tasks never end are held for as long as those that a request takes now."""
    tenant = store.tenant()
    if of == "limit":
        p = policy("a", limits=[limit("c", Scope.TENANT, Resource.CONCURRENCY, 2, 0)])
    else:
        p = policy(provider("a", max_concurrency=2))
    short = Options(deadline_ms=5_000)
    store.now += 2 * HOUR
    for i in range(2):
        assert isinstance(store.one(request(tenant, f"r{i}", options=short), p), Admitted)
    store.now -= 2 * HOUR
    assert not isinstance(store.one(request(tenant, "s", options=short), p), Admitted)
    store.now += 4_999
    assert not isinstance(store.one(request(tenant, "t", options=short), p), Admitted)
    store.now += 1
    assert isinstance(store.one(request(tenant, "u", options=short), p), Admitted)


def test_a_breaker_counts_its_window_again(store: Store) -> None:
    """Failures that were counted ahead do not count for as long as the clock was ahead."""
    rate = Breaker(failure_threshold=100, minimum_requests=4, error_rate_threshold=0.5, error_rate_window_ms=MINUTE)
    tenant, p = store.tenant(), policy("a", breaker=rate)
    names = iter(range(100))

    def one(verdict: BreakerVerdict) -> None:
        made = store.one(request(tenant, f"r{next(names)}"), p)
        assert isinstance(made, Admitted)
        store.settle(undispatched(tenant, made.decision_id, verdict, rate, provider_entry("a")))

    store.now += 2 * HOUR
    one(BreakerVerdict.SUCCESS)
    one(BreakerVerdict.FAILURE)
    store.now -= 2 * HOUR
    for _ in range(6):
        store.now += 30_000
        one(BreakerVerdict.SUCCESS)
    store.now += 2 * MINUTE
    for _ in range(3):
        one(BreakerVerdict.FAILURE)
    assert isinstance(store.one(request(tenant, "still closed"), p), Admitted)
