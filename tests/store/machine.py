"""State machines that hold decide and settle against small models."""

from typing import Any, ClassVar, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec import structs
from redis import RedisCluster

from router.domain.decide.decision import Verdict
from router.domain.decide.outcome import (
    NOTHING_OBSERVED,
    Admitted,
    Conflict,
    LimitHit,
    NoCandidate,
    Outcome,
    Replay,
    Reservation,
)
from router.domain.decide.request import NO_STEP, DecideRequest, Options, Step
from router.domain.ids import idempotency_name, name_in
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Fallback, Limit, Sticky, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import BreakerTurn, Correction, Moved, NotMoved
from tests.store.harness import MINUTE, Ask, Client, Store, policy, request, undispatched

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
SHORT = settings(max_examples=70, stateful_step_count=40, deadline=None, suppress_health_check=QUIET)
LONG = settings(max_examples=7_000, stateful_step_count=50, deadline=None, suppress_health_check=QUIET)
TOKENS = limit("tokens", Scope.TENANT, Resource.TOKENS, 50, MINUTE)
USER = limit("user", Scope.USER, Resource.REQUESTS, 6, 2 * MINUTE)
PROVIDER = limit("provider", Scope.PROVIDER, Resource.REQUESTS, 5, 90_000)
SLOTS = limit("slots", Scope.TENANT, Resource.CONCURRENCY, 4, 0)
EXACT = limit("exact", Scope.TENANT, Resource.TOKENS, 40, 50_000, algorithm=Algorithm.LOG)
A_SLOTS = 2
DAY = 24 * 60 * MINUTE


FALLBACK = Fallback(to="b", statuses=("429",), retry=2)
STEPS = (
    NO_STEP,
    NO_STEP,
    NO_STEP,
    Step("429", "a"),
    Step("429", "a", 1),
    Step("429", "b"),
    Step("503", "b"),
    Step("503", "a"),
    Step("429"),
    Step("503"),
    Step("success", "a", 1),
    Step(None, "a", 1),
)


def limited(*limits: Limit) -> StoredPolicy:
    """The policy under which these limits are asked."""
    providers = provider("a", priority=2, max_concurrency=A_SLOTS), provider("b", priority=1)
    return policy(*providers, limits=limits, sticky=Sticky(ttl_ms=10 * MINUTE), fallbacks=(FALLBACK,))


def order_of(step: Step) -> tuple[list[str], bool]:
    """The providers in their order for a step, and whether the rule led away from the failed one."""
    order, front = ["a", "b"], []
    if step.status in (None, "success"):
        return order, False
    failed = step.current_provider
    if step.status == "429":
        if failed and step.retry_attempts + 1 < FALLBACK.retry:
            front.append(failed)
        front.append("b")
    if failed and front[:1] != [failed]:
        order.remove(failed)
        order.append(failed)
    return list(dict.fromkeys([*front, *order])), front[:1] == ["b"]


class Sliding:
    """The model of one sliding counter: charges by bucket."""

    def __init__(self, of: Limit) -> None:
        self.of = of
        self.width = -(-of.window_ms // 11)
        self.charges: list[list[int]] = []
        self.admitted: list[tuple[int, int]] = []

    def fits(self, units: int, now: int) -> bool:
        """Whether so many units pass now: the newest 12 buckets count."""
        used = sum(n for bucket, n in self.charges if bucket > now // self.width - 12)
        return used + units <= self.of.limit

    def charge(self, units: int, now: int) -> None:
        """They pass."""
        self.charges.append([now // self.width, units])
        self.admitted.append((now, units))

    def give_back(self, units: int, charged: int) -> None:
        """Unused units leave the bucket that was charged."""
        for entry in self.charges:
            if entry[0] == charged // self.width and units:
                taken = min(units, entry[1])
                entry[1] -= taken
                units -= taken


class Log(Sliding):
    """The model of one exact counter: every charge counts for the window's length, its last moment included."""

    def __init__(self, of: Limit) -> None:
        super().__init__(of)
        self.width = 1

    def fits(self, units: int, now: int) -> bool:
        """Whether so many units pass now."""
        used = sum(n for at, n in self.charges if at >= now - self.of.window_ms)
        return used + units <= self.of.limit


def model_of(of: Limit) -> Sliding:
    """The model of a limit's algorithm."""
    return Log(of) if of.algorithm is Algorithm.LOG else Sliding(of)


class Given(NamedTuple):
    """A decision as the model remembers it."""

    decision: bytes
    name: str
    same_as: str
    units: int
    at: int


class Decisions(RuleBasedStateMachine):
    """Two tenants, two users, two providers, every kind of limit."""

    client: Client
    made_by: ClassVar[type[Store]] = Store
    stored: ClassVar[StoredPolicy] = limited(TOKENS, USER, PROVIDER, SLOTS, EXACT)

    def __init__(self) -> None:
        super().__init__()
        self.store = self.made_by(self.client)
        # Loading a library is a change, which is not to be taken for a row's.
        self.store.load(self.store.decide_script)
        self.tenants = [self.store.tenant(), self.store.tenant()]
        self.counters: dict[tuple[str, ...], Sliding] = {}
        self.leases: dict[tuple[str, str], dict[bytes, int]] = {}
        self.given: dict[tuple[str, int, str], Given] = {}
        self.pins: dict[tuple[str, str], str] = {}
        self.settled: set[bytes] = set()

    def counter(self, of: Limit, *owner: str) -> Sliding:
        """The model's counter of one owner."""
        return self.counters.setdefault((of.id, *owner), model_of(of))

    def live(self, tenant: str, owner: str) -> int:
        """How many leases are held."""
        now = self.store.now
        return sum(1 for end in self.leases.setdefault((tenant, owner), {}).values() if end > now)

    def follows(self, pinned: str, step: Step, *, by_rule: bool) -> bool:
        """Whether the pin is looked at: not when the caller reports its provider as failed."""
        if step.status in (None, "success"):
            return True
        return not by_rule if step.current_provider is None else step.current_provider != pinned

    def fit(self, tenant: str, name: str) -> bool:
        """Whether a candidate is fit."""
        free = name != "a" or self.live(tenant, "a") < A_SLOTS
        return free and self.counter(PROVIDER, tenant, name).fits(1, self.store.now)

    def expect(self, ask: DecideRequest, number: int, same_as: str, units: int) -> object:
        """What the model says: the class of outcome, or the name of the provider."""
        tenant, user, session = ask.tenant_id, str(ask.user_id), str(ask.context["session_id"])
        known = self.given.get((tenant, number, ask.step.key))
        if known is not None:
            return Replay if known.same_as == same_as else Conflict
        now = self.store.now
        if not (
            self.counter(TOKENS, tenant).fits(units, now)
            and (EXACT not in self.stored.policy.limits or self.counter(EXACT, tenant).fits(units, now))
            and self.counter(USER, tenant, user).fits(1, now)
            and self.live(tenant, "") < SLOTS.limit
        ):
            return LimitHit
        order, by_rule = order_of(ask.step)
        pinned = self.pins.get((tenant, session))
        if pinned is not None and self.follows(pinned, ask.step, by_rule=by_rule):
            order = [pinned, *(name for name in order if name != pinned)]
        return next((name for name in order if self.fit(tenant, name)), NoCandidate)

    @rule(
        rows=some.lists(
            some.tuples(
                some.integers(0, 1),
                some.integers(0, 60),
                some.sampled_from(["x", "x", "x", "y"]),
                some.integers(0, 20),
                some.sampled_from(["ann", "bob"]),
                some.sampled_from(["s", "t"]),
                some.sampled_from([5_000, 40_000]),
                some.sampled_from(STEPS),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def decide(self, rows: list[tuple[int, int, str, int, str, str, int, Step]]) -> None:
        """A batch; the model takes its rows one by one."""
        asks = []
        for which, number, same_as, units, user, session, deadline, step in rows:
            options = Options(estimate_tokens=units, deadline_ms=deadline)
            wanted = request(
                self.tenants[which], f"r{number}", same_as=same_as, user=user, session=session, options=options
            )
            asks.append(Ask(structs.replace(wanted, step=step), self.stored))
        previewed = self.preview(asks[0])
        outcomes = self.store.decide(*asks)
        assert as_told(previewed) == as_told(outcomes[0])
        for row, ask, outcome in zip(rows, asks, outcomes, strict=True):
            which, number, same_as, units, user, session, deadline, step = row
            tenant = self.tenants[which]
            expected = self.expect(ask.request, number, same_as, units)
            if isinstance(expected, type):
                assert isinstance(outcome, expected), (row, outcome, expected)
                if isinstance(outcome, Replay):
                    assert outcome.remembered.decision_id == self.given[tenant, number, step.key].decision
                continue
            assert isinstance(outcome, Admitted), (row, outcome, expected)
            name = ask.plan.candidates[outcome.candidate].provider.name
            assert name == expected, (row, outcome)
            now = self.store.now
            self.given[tenant, number, step.key] = Given(outcome.decision_id, name, same_as, units, now)
            self.pins[tenant, session] = name
            self.counter(TOKENS, tenant).charge(units, now)
            self.counter(EXACT, tenant).charge(units, now)
            self.counter(USER, tenant, user).charge(1, now)
            self.counter(PROVIDER, tenant, name).charge(1, now)
            for owner in ("", "a") if name == "a" else ("",):
                self.leases.setdefault((tenant, owner), {})[outcome.decision_id] = now + deadline

    def preview(self, ask: Ask) -> Outcome:
        """A row that only looks changes nothing; the one change is the test's clock."""
        before = changes(self.store)
        previewed = self.store.preview(*ask)
        assert changes(self.store) == before + 1
        return previewed

    @rule(ms=some.sampled_from([1, 999, 5_454, 5_455, 5_456, 8_182, 12_000, 40_000, 61_000]))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.store.now += ms

    @precondition(lambda self: len(self.given) > len(self.settled))
    @rule(data=some.data())
    def settle(self, data: some.DataObject) -> None:
        """A result: other tokens than were reserved, its leases end; the same again changes nothing."""
        known = data.draw(some.sampled_from(sorted(self.given)))
        tenant, *_ = known
        one = self.given[known]
        delta = data.draw(some.integers(-one.units, 6))
        leases = [self.correction(SLOTS, "", -1)]
        if one.name == "a":
            leases.append(Correction(Reservation(Scope.PROVIDER, "", Resource.CONCURRENCY, b"", 0, 1), "a", -1))
        move = undispatched(
            tenant,
            one.decision,
            BreakerVerdict.NEITHER,
            charged_ms=one.at,
            corrections=tuple(self.correction(x, "", delta) for x in (TOKENS, EXACT) if x in self.stored.policy.limits)
            if delta
            else (),
            leases=tuple(leases),
        )
        (moved,) = self.store.settle(move)
        if one.decision in self.settled:
            assert isinstance(moved, NotMoved)
            return
        assert moved == Moved(BreakerTurn.UNCHANGED)
        self.settled.add(one.decision)
        for of in (TOKENS, EXACT):
            counter = self.counter(of, tenant)
            if delta > 0:
                counter.charges.append([self.store.now // counter.width, delta])
            elif of is EXACT or one.at // counter.width > self.store.now // counter.width - 12:
                counter.give_back(-delta, one.at)
        for owner in ("", "a"):
            self.leases.get((tenant, owner), {}).pop(one.decision, None)

    @staticmethod
    def correction(of: Limit, owner: str, delta: int) -> Correction:
        """What a result changes of a limit."""
        log = of.algorithm is Algorithm.LOG
        return Correction(Reservation(of.scope, owner, of.resource, of.entry, of.window_ms, 0, log), owner, delta)

    def teardown(self) -> None:
        """The log has one entry for each decision; no window of requests held more than its limit."""
        for tenant in self.tenants:
            made = sum(1 for t, *_ in self.given if t == tenant)
            assert self.store.actions(tenant).count("decision.made") == made
        for counter in self.counters.values():
            if counter.of not in (TOKENS, EXACT):  # what results correct is not what was admitted
                assert worst(counter.admitted, counter.of.window_ms) <= counter.of.limit
        drop(self.store)


def worst(admitted: list[tuple[int, int]], window: int) -> int:
    """The most units in any window of that length, both ends included."""
    maximum = 0
    for at, _ in admitted:
        maximum = max(maximum, sum(n for t, n in admitted if at <= t <= at + window))
    return maximum


def as_told(outcome: Outcome) -> Outcome:
    """An outcome without what only those who ask are told, and without the id that is new every time."""
    if isinstance(outcome, Admitted):
        return structs.replace(outcome, decision_id=b"", seen=NOTHING_OBSERVED)
    return structs.replace(outcome, seen=NOTHING_OBSERVED) if isinstance(outcome, LimitHit | NoCandidate) else outcome


def changes(store: Store) -> int:
    """How many changes the server has seen."""
    told: Any
    if isinstance(store.client, RedisCluster):
        told = store.client.info("persistence", target_nodes=RedisCluster.PRIMARIES)
    else:
        told = {"": store.client.info("persistence")}
    return sum(int(node["rdb_changes_since_last_save"]) for node in told.values())


def drop(store: Store) -> None:
    """Forget a schema, so that long runs do not fill the server."""
    keys = list(store.client.scan_iter(store.keys.schema.encode() + b"*", count=10_000))
    if keys:
        store.client.unlink(*keys)


class BreakerModel:
    """What the documents say of one breaker."""

    def __init__(self, with_: Breaker) -> None:
        self.with_ = with_
        self.state = "closed"
        self.since = self.until = 0
        self.failures = self.successes = 0
        self.kept = 0
        self.probes: dict[bytes, int] = {}
        self.calls: list[tuple[int, bool]] = []

    def live(self, now: int) -> int:
        """Probes that are out."""
        return sum(1 for end in self.probes.values() if end > now)

    def verdict(self, now: int, part: float) -> Verdict | None:
        """Why not; None when it lets a request through. `part` is the request's own, for a slow start."""
        if self.state == "closed":
            return Verdict.SLOW_START if self.slow(now, part) else None
        if self.state == "open" and now < self.until:
            return Verdict.BREAKER_OPEN
        return Verdict.PROBES_BUSY if self.live(now) >= self.with_.half_open_max_calls else None

    def slow(self, now: int, part: float) -> bool:
        """Whether the request is left to others because the breaker has just closed."""
        return now < self.until and part >= max(0.1, (now - self.since) / (self.until - self.since))

    def starts_slowly(self, now: int) -> None:
        """It has closed."""
        self.since, self.until = now, now + min(self.with_.timeout_ms, 10_000)
        self.kept = max(self.kept, self.until)

    def admitted(self, decision: bytes, now: int, until: int) -> None:
        """A request goes through; on trial unless it is closed."""
        if self.state == "closed":
            return
        if self.state == "open":
            self.state, self.successes = "half_open", 0
        self.probes = {d: end for d, end in self.probes.items() if end > now} | {decision: until}
        self.kept = max(self.kept, until)

    def told(self, decision: bytes, ok: bool, now: int) -> BreakerTurn:
        """A result."""
        w = self.with_
        was_probe = self.probes.pop(decision, 0) > now
        self.probes = {d: end for d, end in self.probes.items() if end > now}
        size = -(-w.error_rate_window_ms // 10)
        self.calls.append((now // size, ok))
        recent = [good for bucket, good in self.calls if bucket > now // size - 10]
        failed = recent.count(False)
        turn = BreakerTurn.UNCHANGED
        if self.state == "closed":
            self.failures = 0 if ok else self.failures + 1
            rate = len(recent) >= w.minimum_requests and failed / len(recent) >= w.error_rate_threshold and not ok
            if self.failures >= w.failure_threshold or rate:
                turn = self.trip(now)
        elif not ok:
            if self.state == "open" or was_probe:
                turn = self.trip(now)
        elif was_probe:
            self.successes += 1
            if self.successes >= w.success_threshold:
                self.state, self.failures, self.successes, self.probes, self.calls = "closed", 0, 0, {}, []
                self.kept = self.kept_by_probes(now)
                self.starts_slowly(now)
                turn = BreakerTurn.CLOSED
        self.kept = max(self.kept, now + w.error_rate_window_ms)
        if self.state != "closed":
            self.kept = max(self.kept, self.until + self.trip_kept())
        return turn

    def kept_by_probes(self, now: int) -> int:
        """How long a trip that has just ended is kept: what it added does not outlive it."""
        return now

    def trip_kept(self) -> int:
        """How long a trip is kept after probes are due: a day."""
        return DAY

    def let_go(self, decision: bytes, now: int) -> bool:
        """A result that says nothing of the provider; whether it ended a probe."""
        return self.probes.pop(decision, 0) > now

    def trip(self, now: int) -> BreakerTurn:
        """Open, or open for longer."""
        turn = BreakerTurn.UNCHANGED
        if self.state != "open":
            turn, self.probes = BreakerTurn.OPENED, {}
            if self.state == "closed":
                self.until = 0
        self.state, self.successes = "open", 0
        self.until = max(self.until, now + self.with_.timeout_ms)
        return turn


class Breakers(RuleBasedStateMachine):
    """Two providers of one tenant; results come late, twice, or never."""

    client: Client
    made_by: ClassVar[type[Store]] = Store
    breaker = Breaker(
        failure_threshold=3,
        error_rate_threshold=0.5,
        error_rate_window_ms=100_000,
        minimum_requests=6,
        timeout_ms=60_000,
        success_threshold=2,
        half_open_max_calls=2,
    )

    def __init__(self) -> None:
        super().__init__()
        self.store = self.made_by(self.client)
        self.tenant = self.store.tenant()
        self.policy = policy("a", "b", breaker=self.breaker)
        self.models = {n: BreakerModel(self.breaker) for n in "ab"}
        self.made: list[tuple[bytes, str]] = []
        self.count = 0

    def forget(self) -> None:
        """The write-back drops breakers that have ended."""
        for name, model in self.models.items():
            if model.kept <= self.store.now:
                self.models[name] = BreakerModel(self.breaker)

    @rule(deadline=some.sampled_from([5_000, 30_000]))
    def ask(self, deadline: int) -> None:
        """A request: the first provider whose breaker lets it through."""
        self.count += 1
        now = self.store.now
        wanted = request(self.tenant, f"r{self.count}", options=Options(deadline_ms=deadline))
        outcome: Outcome = self.store.one(wanted, self.policy)
        part = int.from_bytes(idempotency_name(self.tenant, "request", wanted.request_id)[:4]) / 2**32
        verdicts = {n: m.verdict(now, part) for n, m in self.models.items()}
        fit = [n for n in "ab" if verdicts[n] is None] or [n for n in "ab" if verdicts[n] is Verdict.SLOW_START]
        name = fit[0] if fit else None
        if name is None:
            assert isinstance(outcome, NoCandidate), (outcome, verdicts)
            assert [Verdict(v) for v in outcome.verdicts] == list(verdicts.values())
            assert outcome.retry_after_ms is not None
            assert outcome.retry_after_ms > 0
            return
        assert isinstance(outcome, Admitted), (outcome, verdicts)
        assert "ab"[outcome.candidate] == name
        model = self.models[name]
        trial = model.state != "closed"
        model.admitted(outcome.decision_id, now, now + deadline)
        if trial:
            self.forget()
        self.made.append((outcome.decision_id, name))

    @precondition(lambda self: self.made)
    @rule(back=some.integers(0, 6), verdict=some.sampled_from([*BreakerVerdict, BreakerVerdict.FAILURE]))
    def tell(self, back: int, verdict: BreakerVerdict) -> None:
        """A result of one of the last decisions; each counts once."""
        decision, name = self.made.pop(max(0, len(self.made) - 1 - back))
        move = undispatched(self.tenant, decision, verdict, self.breaker, provider_entry(name))
        first, again = self.store.settle(move, move)
        assert isinstance(again, NotMoved)
        model = self.models[name]
        if verdict is BreakerVerdict.NEITHER:
            assert first == Moved(BreakerTurn.UNCHANGED)
            if model.let_go(decision, self.store.now):
                self.forget()
            return
        assert first == Moved(model.told(decision, verdict is BreakerVerdict.SUCCESS, self.store.now))
        self.forget()

    @rule(timeout_ms=some.sampled_from([1_000, 60_000]))
    def revise(self, timeout_ms: int) -> None:
        """Another revision of the policy: what is counted stays, the timeout is another from now on."""
        self.breaker = structs.replace(self.breaker, timeout_ms=timeout_ms)
        self.policy = policy("a", "b", breaker=self.breaker)
        for model in self.models.values():
            model.with_ = self.breaker

    @rule(ms=some.sampled_from([1, 4_999, 5_000, 10_000, 30_000, 59_999, 60_000, 130_000, 3_600_000, DAY]))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.store.now += ms

    def teardown(self) -> None:
        """Every decision is remembered under its own name."""
        keys = self.store.of(self.tenant)
        for decision, _ in self.made[-3:]:
            assert self.store.value(keys.idem(name_in(decision))) is not None
        drop(self.store)


def run(machine: type[RuleBasedStateMachine], client: Client, how: settings, *, minimum: int) -> None:
    """One run of a machine on a server, which is no proof unless it took at least so many steps."""
    looks = examples = 0

    class Counted(machine):  # type: ignore[misc, valid-type]  # a class of the caller's
        def __init__(self) -> None:
            nonlocal examples
            examples += 1
            super().__init__()

        @invariant()
        def after_each_step(self) -> None:
            nonlocal looks
            looks += 1

    Counted.client = client
    Counted.__name__ = machine.__name__
    run_state_machine_as_test(Counted, settings=how)
    # The first look of an example is before its first step.
    assert looks - examples >= minimum
