"""The walk of lua/decide.lua: pins, breakers, levers, and the verdicts that it tells."""

import pytest
from msgspec.structs import replace

from router.domain.decide.decision import PinState, Reason, Verdict
from router.domain.decide.outcome import Admitted, NoCandidate, Outcome
from router.domain.decide.request import Options
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, StoredPolicy, provider_entry
from router.domain.policy.vocabulary import Resource, Scope, WhenAllOpen
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import BreakerTurn, Moved
from tests.store.harness import MINUTE, Store, head, policy, request, undispatched

TIMEOUT = 10 * MINUTE
TRIP_AT_ONCE = Breaker(failure_threshold=1, timeout_ms=TIMEOUT, success_threshold=2, half_open_max_calls=2)
STICKY = Sticky(ttl_ms=600_000)


def chosen(outcome: Outcome) -> tuple[int, Reason, PinState, bytes]:
    """Candidate, reason, pin and verdicts of an admitted row."""
    assert isinstance(outcome, Admitted), outcome
    return outcome.candidate, outcome.reason, outcome.pin, outcome.verdicts


class Breakers:
    """A tenant whose providers' breakers a test trips and heals."""

    def __init__(self, store: Store, stored: StoredPolicy) -> None:
        self.store = store
        self.stored = stored
        self.tenant = store.tenant()
        self.count = 0

    def ask(self, *, deadline_ms: int = 5_000) -> Outcome:
        """A fresh request."""
        self.count += 1
        wanted = request(self.tenant, f"r{self.count}", options=Options(deadline_ms=deadline_ms))
        return self.store.one(wanted, self.stored)

    def tell(self, outcome: Outcome, verdict: BreakerVerdict) -> BreakerTurn:
        """The result of a decision."""
        assert isinstance(outcome, Admitted)
        used = self.stored.policy.providers[outcome.candidate]
        move = undispatched(self.tenant, outcome.decision_id, verdict, self.stored.policy.breaker, used.entry)
        (moved,) = self.store.settle(move)
        assert isinstance(moved, Moved), moved
        return moved.turn

    def trip(self, *names: str) -> None:
        """One failure of each, by decisions that were made while all was well."""
        breaker = self.stored.policy.breaker
        for name in names:
            alone = policy(name, breaker=breaker)
            self.count += 1
            made = self.store.one(request(self.tenant, f"r{self.count}"), alone)
            assert isinstance(made, Admitted)
            (moved,) = self.store.settle(
                undispatched(self.tenant, made.decision_id, BreakerVerdict.FAILURE, breaker, provider_entry(name))
            )
            assert moved == Moved(BreakerTurn.OPENED)


# Pins


def test_a_session_stays_where_it_was(store: Store) -> None:
    """The first request pins; the next one goes there though another provider is preferred by now."""
    tenant = store.tenant()
    first = store.one(request(tenant, "1", session="s"), policy("a", "b", sticky=STICKY))
    second = store.one(request(tenant, "2", session="s"), policy("b", "a", sticky=STICKY))
    assert chosen(first) == (0, Reason.WEIGHTED, PinState.NEW, b"\x01\x00")
    assert chosen(second) == (1, Reason.STICKY, PinState.HELD, b"\x00\x01")


def test_other_sessions_are_not_pinned(store: Store) -> None:
    """A pin is of one session, one policy and one tenant."""
    tenant = store.tenant()
    store.one(request(tenant, "1", session="s"), policy("a", "b", sticky=STICKY))
    turned = policy("b", "a", sticky=STICKY)
    named = policy("b", "a", sticky=STICKY, policy_id="other")
    outcomes = [
        store.one(request(tenant, "2", session="t"), turned),
        store.one(request(tenant, "3", session="s", policy_id="other"), named),
        store.one(request(store.tenant(), "4", session="s"), turned),
        store.one(request(tenant, "5"), turned),
    ]
    pins = [PinState.NEW, PinState.NEW, PinState.NEW, PinState.NONE]
    assert [chosen(o)[:3] for o in outcomes] == [(0, Reason.WEIGHTED, pin) for pin in pins]


def test_a_pin_is_left_when_its_provider_is_unfit(store: Store) -> None:
    """The session moves on, says so, and stays at the new one after the old one is well again."""
    tenant = store.tenant()
    p = policy("a", "b", sticky=STICKY)
    store.one(request(tenant, "1", session="s"), p)
    store.client.set(store.of(tenant).head, head(levers={provider_entry("a"): 6}))
    assert chosen(store.one(request(tenant, "2", session="s"), p)) == (1, Reason.WEIGHTED, PinState.LEFT, b"\x06\x01")
    store.client.delete(store.of(tenant).head)
    assert chosen(store.one(request(tenant, "3", session="s"), p)) == (1, Reason.STICKY, PinState.HELD, b"\x00\x01")
    assert [e.details["pin"] for e in store.audit(tenant)] == ["new", "left", "held"]


def test_a_pin_to_a_provider_that_is_gone_is_left(store: Store) -> None:
    """A revision without the pinned provider moves the session."""
    tenant = store.tenant()
    store.one(request(tenant, "1", session="s"), policy("a", sticky=STICKY))
    moved = store.one(request(tenant, "2", session="s"), policy("b", "c", sticky=STICKY))
    assert chosen(moved) == (0, Reason.WEIGHTED, PinState.LEFT, b"\x01\x00")


def test_a_pin_that_is_used_lives_on(store: Store) -> None:
    """A pin's life starts anew once a tenth of it has passed; before that it costs no write."""
    tenant = store.tenant()
    p = policy("a", sticky=STICKY)
    first = request(tenant, "1", session="s")
    store.one(first, p)
    (key,) = store.client.scan_iter(store.of(tenant).prefix + b"pin:*")
    store.client.pexpire(key, 1_000_000)
    store.now += 60_000
    store.one(request(tenant, "2", session="s"), p)
    assert int(store.client.pttl(key)) > 900_000
    store.now += 1
    store.one(request(tenant, "3", session="s"), p)
    assert 590_000 < int(store.client.pttl(key)) <= 600_000


def test_a_refused_request_leaves_no_pin(store: Store) -> None:
    """A session that was never served is not pinned."""
    tenant = store.tenant()
    p = policy("a", sticky=STICKY, limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 0, MINUTE)])
    store.one(request(tenant, "1", session="s"), p)
    assert list(store.client.scan_iter(store.of(tenant).prefix + b"pin:*")) == []


# Breakers


def test_an_open_breaker_sends_traffic_to_the_next(store: Store) -> None:
    """The reason says that a breaker stood in the way, and the verdicts say whose."""
    b = Breakers(store, policy("a", "b", breaker=TRIP_AT_ONCE))
    b.trip("a")
    assert chosen(b.ask()) == (1, Reason.CIRCUIT_BREAKER_FALLBACK, PinState.NONE, b"\x02\x01")


def test_all_open_says_when_the_next_probe_is_due(store: Store) -> None:
    """The refusal's moment is the soonest breaker's: refused one millisecond before, a probe then."""
    b = Breakers(store, policy("a", "b", breaker=TRIP_AT_ONCE))
    b.trip("b")
    store.now += 7_000
    b.trip("a")
    assert b.ask() == NoCandidate(b"\x02\x02", TIMEOUT - 7_000)
    store.now += TIMEOUT - 7_001
    assert b.ask() == NoCandidate(b"\x02\x02", 1)
    store.now += 1
    assert chosen(b.ask()) == (1, Reason.CIRCUIT_BREAKER_FALLBACK, PinState.NONE, b"\x02\x01")
    made, turned = store.audit(b.tenant)[-2:]
    assert (made.action, turned.action) == ("decision.made", "breaker.half_opened")
    assert turned.details["decision_id"] == made.details["decision_id"]


def test_half_open_lets_so_many_probes_through(store: Store) -> None:
    """half_open_max_calls at once, no more; the moment told is the soonest probe's end."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    assert isinstance(b.ask(deadline_ms=60_000), Admitted)
    assert isinstance(b.ask(deadline_ms=20_000), Admitted)
    assert b.ask() == NoCandidate(b"\x03", 20_000)


def test_fewer_probes_than_are_out(store: Store) -> None:
    """A lowered half_open_max_calls: the moment told is when enough probes have ended, not the first one."""
    three = Breaker(failure_threshold=1, timeout_ms=TIMEOUT, half_open_max_calls=3)
    breakers = Breakers(store, policy("a", breaker=three))
    breakers.trip("a")
    store.now += TIMEOUT
    for deadline in (20_000, 5_000, 10_000):
        assert isinstance(breakers.ask(deadline_ms=deadline), Admitted)
    breakers.stored = policy("a", breaker=replace(three, half_open_max_calls=2))
    refused = breakers.ask()
    assert isinstance(refused, NoCandidate)
    assert refused.retry_after_ms == 10_000
    store.now += 9_999
    assert isinstance(breakers.ask(), NoCandidate)
    store.now += 1
    assert isinstance(breakers.ask(), Admitted)


def test_an_expired_probe_is_neither(store: Store) -> None:
    """A probe that nobody answers for frees its place; the breaker stays half open."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    lost = [b.ask(deadline_ms=20_000), b.ask(deadline_ms=20_000)]
    store.now += 20_000
    again = b.ask()
    assert isinstance(again, Admitted)
    assert b.tell(lost[0], BreakerVerdict.SUCCESS) is BreakerTurn.UNCHANGED
    assert b.tell(lost[1], BreakerVerdict.FAILURE) is BreakerTurn.UNCHANGED
    assert b.tell(again, BreakerVerdict.SUCCESS) is BreakerTurn.UNCHANGED
    assert b.tell(b.ask(), BreakerVerdict.SUCCESS) is BreakerTurn.CLOSED


def test_a_probe_that_says_nothing_frees_its_place(store: Store) -> None:
    """A cancelled one, or an error of the task's own: the next probe need not wait for its deadline."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    probes = [b.ask(), b.ask()]
    assert isinstance(b.ask(), NoCandidate)
    assert b.tell(probes[0], BreakerVerdict.NEITHER) is BreakerTurn.UNCHANGED
    again = b.ask()
    assert isinstance(again, Admitted)
    assert isinstance(b.ask(), NoCandidate)
    assert b.tell(probes[1], BreakerVerdict.SUCCESS) is BreakerTurn.UNCHANGED
    assert b.tell(again, BreakerVerdict.SUCCESS) is BreakerTurn.CLOSED


def test_enough_good_probes_close_it(store: Store) -> None:
    """success_threshold good probes close the breaker, and the log has every turn."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    probes = [b.ask(), b.ask()]
    turns = [b.tell(p, BreakerVerdict.SUCCESS) for p in probes]
    assert turns == [BreakerTurn.UNCHANGED, BreakerTurn.CLOSED]
    assert [a for a in store.actions(b.tenant) if a.startswith("breaker")] == [
        "breaker.opened",
        "breaker.half_opened",
        "breaker.closed",
    ]
    assert all(isinstance(b.ask(), Admitted) for _ in range(5))


def test_a_bad_probe_opens_it_again(store: Store) -> None:
    """One failed probe: open for a whole timeout from now."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    probe = b.ask()
    store.now += 3_000
    assert b.tell(probe, BreakerVerdict.FAILURE) is BreakerTurn.OPENED
    assert b.ask() == NoCandidate(b"\x02", TIMEOUT)


def test_a_probe_of_a_failed_trial_counts_no_more(store: Store) -> None:
    """Two probes are out and the first fails: the other's success does not cut the new timeout short."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    bad, good = b.ask(), b.ask()
    assert b.tell(bad, BreakerVerdict.FAILURE) is BreakerTurn.OPENED
    assert b.tell(good, BreakerVerdict.SUCCESS) is BreakerTurn.UNCHANGED
    assert b.ask() == NoCandidate(b"\x02", TIMEOUT)


def test_a_retrip_only_extends(store: Store) -> None:
    """A failure of an older decision while open moves the end outwards; it never brings it nearer."""
    long = policy("a", breaker=TRIP_AT_ONCE)
    b = Breakers(store, long)
    early, late = b.ask(), b.ask()
    b.trip("a")
    store.now += 60_000
    assert b.tell(early, BreakerVerdict.FAILURE) is BreakerTurn.UNCHANGED
    assert b.ask() == NoCandidate(b"\x02", TIMEOUT)
    b.stored = policy("a", breaker=Breaker(failure_threshold=1, timeout_ms=1_000))
    assert b.tell(late, BreakerVerdict.FAILURE) is BreakerTurn.UNCHANGED
    assert b.ask() == NoCandidate(b"\x02", TIMEOUT)


def test_an_unknown_result_counts_for_nothing(store: Store) -> None:
    """Neither success nor failure leaves the breaker as it was."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    assert b.tell(b.ask(), BreakerVerdict.NEITHER) is BreakerTurn.UNCHANGED
    assert isinstance(b.ask(), Admitted)


def test_failures_must_be_in_a_row(store: Store) -> None:
    """A success in between starts the count anew."""
    b = Breakers(store, policy("a", breaker=Breaker(failure_threshold=3, minimum_requests=1000)))
    said = "FFSFFF"
    turns = [b.tell(b.ask(), BreakerVerdict.FAILURE if c == "F" else BreakerVerdict.SUCCESS) for c in said]
    assert turns == [BreakerTurn.UNCHANGED] * 5 + [BreakerTurn.OPENED]


def test_a_share_of_failures_opens_it(store: Store) -> None:
    """Half of at least `minimum_requests` calls in the window; calls older than the window do not count."""
    rate = Breaker(
        failure_threshold=1000, error_rate_threshold=0.5, minimum_requests=4, error_rate_window_ms=10 * MINUTE
    )
    b = Breakers(store, policy("a", breaker=rate))
    success, failure = BreakerVerdict.SUCCESS, BreakerVerdict.FAILURE
    for verdict in (success, failure):
        b.tell(b.ask(), verdict)
    store.now += 11 * MINUTE
    turns = [b.tell(b.ask(), v) for v in (failure, failure, success)]
    assert turns == [BreakerTurn.UNCHANGED] * 3
    assert b.tell(b.ask(), failure) is BreakerTurn.OPENED


def test_breakers_are_the_tenants_own(store: Store) -> None:
    """Another tenant's traffic to the same provider goes on."""
    b = Breakers(store, policy("a", breaker=TRIP_AT_ONCE))
    b.trip("a")
    assert isinstance(store.one(request(store.tenant(), "r"), b.stored), Admitted)


def test_all_open_probe_one(store: Store) -> None:
    """One probe at a time goes to the breaker that is due first; when it goes well it counts."""
    one = Breaker(failure_threshold=1, timeout_ms=TIMEOUT, success_threshold=1, when_all_open=WhenAllOpen.PROBE_ONE)
    b = Breakers(store, policy("a", "b", breaker=one))
    b.trip("b")
    store.now += 5_000
    b.trip("a")
    probe = b.ask()
    assert chosen(probe) == (1, Reason.CIRCUIT_BREAKER_FALLBACK, PinState.NONE, b"\x02\x01")
    assert isinstance(b.ask(), NoCandidate)
    assert b.tell(probe, BreakerVerdict.SUCCESS) is BreakerTurn.CLOSED
    assert chosen(b.ask())[0] == 1


def test_a_lost_probe_one_does_not_lock(store: Store) -> None:
    """The single probe's place is free again at its deadline."""
    one = Breaker(failure_threshold=1, timeout_ms=TIMEOUT, when_all_open=WhenAllOpen.PROBE_ONE)
    b = Breakers(store, policy("a", breaker=one))
    b.trip("a")
    assert isinstance(b.ask(deadline_ms=9_000), Admitted)
    store.now += 8_999
    assert isinstance(b.ask(), NoCandidate)
    store.now += 1
    assert isinstance(b.ask(), Admitted)


def test_all_open_last_resort(store: Store) -> None:
    """Everything goes to the one that is due first, and concurrency still holds."""
    last = Breaker(failure_threshold=1, timeout_ms=TIMEOUT, when_all_open=WhenAllOpen.LAST_RESORT)
    b = Breakers(store, policy("a", "b", breaker=last))
    b.trip("b")
    store.now += 5_000
    b.trip("a")
    assert [chosen(b.ask())[0] for _ in range(10)] == [1] * 10


# Levers


@pytest.mark.parametrize(("lever", "reason"), [(6, Reason.WEIGHTED), (7, Reason.CIRCUIT_BREAKER_FALLBACK)])
def test_a_lever_takes_a_provider_out(store: Store, lever: int, reason: Reason) -> None:
    """Drained and forced open: passed over at once, the verdict says which."""
    tenant = store.tenant()
    store.client.set(store.of(tenant).head, head(levers={provider_entry("a"): lever, provider_entry("x"): 6}))
    made = store.one(request(tenant, "r"), policy("a", "b", breaker=TRIP_AT_ONCE))
    assert chosen(made) == (1, reason, PinState.NONE, bytes([lever, 1]))


def test_no_lever_is_overridden_by_last_resort(store: Store) -> None:
    """A forced provider stays out though every other breaker is open."""
    last = Breaker(failure_threshold=1, timeout_ms=TIMEOUT, when_all_open=WhenAllOpen.LAST_RESORT)
    b = Breakers(store, policy("a", breaker=last))
    store.client.set(store.of(b.tenant).head, head(levers={provider_entry("a"): 7}))
    assert b.ask() == NoCandidate(b"\x07", None)


def test_a_policy_without_candidates(store: Store) -> None:
    """No candidate at all is a refusal like another: audited, no moment."""
    tenant = store.tenant()
    assert store.one(request(tenant, "r"), policy()) == NoCandidate(b"", None)
    assert store.actions(tenant) == ["decision.refused"]


# Slow start


def recovered(store: Store) -> Breakers:
    """a has failed and is closed again, this very moment; b was well all the time."""
    b = Breakers(store, policy("a", "b", breaker=TRIP_AT_ONCE))
    b.trip("a")
    store.now += TIMEOUT
    for turn in (BreakerTurn.UNCHANGED, BreakerTurn.CLOSED):
        probe = b.ask()
        assert chosen(probe)[0] == 0
        assert b.tell(probe, BreakerVerdict.SUCCESS) is turn
    return b


def share_of_a(b: Breakers, count: int = 300) -> float:
    """How much of fresh traffic a gets."""
    return sum(chosen(b.ask())[0] == 0 for _ in range(count)) / count


@pytest.mark.parametrize(("after_ms", "minimum", "maximum"), [(0, 0.04, 0.18), (5_000, 0.40, 0.60), (10_000, 1, 1)])
def test_who_recovers_gets_its_share_back_slowly(store: Store, after_ms: int, minimum: float, maximum: float) -> None:
    """A tenth at once, half after half of ten seconds, all after them."""
    b = recovered(store)
    store.now += after_ms
    assert minimum <= share_of_a(b) <= maximum


def test_a_slow_start_is_told(store: Store) -> None:
    """Who was passed over for it is named so, and the reason of the next one is no breaker's."""
    b = recovered(store)
    others = [o for o in (b.ask() for _ in range(20)) if chosen(o)[0] == 1]
    assert {chosen(o)[3] for o in others} == {bytes((Verdict.SLOW_START, Verdict.CHOSEN))}
    assert {chosen(o)[1] for o in others} == {Reason.WEIGHTED}


def test_a_slow_start_never_leaves_a_request_without_a_provider(store: Store) -> None:
    """When nobody else is fit, it goes to the one that recovers."""
    b = recovered(store)
    b.trip("b")
    assert {chosen(b.ask())[0] for _ in range(20)} == {0}


def test_a_pinned_session_comes_back_at_once(store: Store) -> None:
    """It is turned away from its own provider by no slow start."""
    b = recovered(store)
    pinned = policy("a", breaker=TRIP_AT_ONCE, sticky=STICKY)
    for i in range(10):
        store.one(request(b.tenant, f"pin{i}", session=f"s{i}"), pinned)
    both = policy("a", "b", breaker=TRIP_AT_ONCE, sticky=STICKY)
    held = [chosen(store.one(request(b.tenant, f"use{i}", session=f"s{i}"), both)) for i in range(10)]
    assert {(candidate, pin) for candidate, _, pin, _ in held} == {(0, PinState.HELD)}


def test_a_failure_in_the_slow_start_opens_for_the_whole_timeout(store: Store) -> None:
    """What was left of the slow start lengthens nothing."""
    b = recovered(store)
    b.trip("a")
    refused = store.one(request(b.tenant, "r"), policy("a", breaker=TRIP_AT_ONCE))
    assert refused == NoCandidate(bytes((Verdict.BREAKER_OPEN,)), TIMEOUT)
