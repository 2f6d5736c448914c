"""Sessions whose caller reports a failed provider: the pin does not beat the caller's fallback."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import Admitted, Conflict, Replay
from router.domain.decide.plan import plan
from router.domain.decide.request import NO_STEP, DecideRequest, Options, Step
from router.domain.policy.model import Fallback, Sticky, StoredPolicy, provider_entry
from tests.store.harness import MINUTE, Ask, Store, head, policy, request

RULE = Fallback(to="bed1", statuses=("429",))
RETRY_TWICE = Fallback(to="bed1", statuses=("5xx",), retry=3)
EXPLAIN = Options(explain=True)


class Session:
    """A session that is pinned to az; its policy prefers az, then aws, then bed1."""

    def __init__(self, store: Store, *fallbacks: Fallback) -> None:
        self.store = store
        self.stored: StoredPolicy = policy("az", "aws", "bed1", fallbacks=fallbacks, sticky=Sticky(ttl_ms=30 * MINUTE))
        self.tenant = store.tenant()
        self.asked = 0
        assert self.ask() == ("az", Reason.WEIGHTED, PinState.NEW)

    def ask(self, step: Step = NO_STEP, session: str | None = "s") -> tuple[str, Reason, PinState]:
        """Provider, reason and pin of a fresh request."""
        self.asked += 1
        made = self.store.one(self._request(step, session), self.stored)
        assert isinstance(made, Admitted), made
        return self._candidates(step)[made.candidate], made.reason, made.pin

    def preview(self, step: Step) -> Admitted:
        """The next request, only looked at."""
        made = self.store.preview(self._request(step, "s"), self.stored)
        assert isinstance(made, Admitted)
        return made

    def _request(self, step: Step, session: str | None) -> DecideRequest:
        wanted = request(self.tenant, f"r{self.asked}", session=session, options=EXPLAIN)
        return replace(wanted, step=step)

    def _candidates(self, step: Step) -> Sequence[str]:
        return [c.provider.name for c in plan(self._request(step, "s"), self.stored).candidates]

    def last(self) -> dict[str, object]:
        """What the audit log says of the last decision."""
        return dict(self.store.audit(self.tenant)[-1].details)


@pytest.mark.parametrize("tries", [0, 1, 2])
@pytest.mark.parametrize("current", ["az", None])
def test_the_rule_beats_the_pin(store: Store, tries: int, current: str | None) -> None:
    """The session goes where it would go without a pin, says why, and stays there."""
    session = Session(store, RULE)
    step = Step("429", current, tries)
    assert session.ask(step, session=None)[0] == "bed1"
    assert session.ask(step) == ("bed1", Reason.FALLBACK, PinState.LEFT)
    assert session.last() | {"pin": "left", "pinned_to": "az", "pin_cause": "failed"} == session.last()
    assert session.ask() == ("bed1", Reason.STICKY, PinState.HELD)


@pytest.mark.parametrize("status", ["500", "503", "HTTP_502", "5xx"])
def test_a_retry_on_the_same_provider_keeps_the_pin(store: Store, status: str) -> None:
    """While the rule says retry the session stays, for that reason; then it moves."""
    session = Session(store, RETRY_TWICE)
    chosen = [session.ask(Step(status, "az", tries)) for tries in range(4)]
    assert chosen[:2] == [("az", Reason.RETRY, PinState.HELD)] * 2
    assert chosen[2] == ("bed1", Reason.FALLBACK, PinState.LEFT)
    assert chosen[3] == ("bed1", Reason.STICKY, PinState.HELD), "az failed, but the pin is on bed1 by now"


@pytest.mark.parametrize("status", ["429", "timeout", "error", "rate_limited"])
def test_without_a_rule_the_next_of_the_order_is_chosen(store: Store, status: str) -> None:
    """The failed provider stands last in its own order, whatever was pinned."""
    session = Session(store)
    assert session.ask(Step(status, "az")) == ("aws", Reason.WEIGHTED, PinState.LEFT)
    assert session.last()["pin_cause"] == "failed"
    assert session.ask(Step(status, "aws", 1)) == ("az", Reason.WEIGHTED, PinState.LEFT)


def test_the_failed_provider_is_used_when_no_other_is_fit(store: Store) -> None:
    """Being reported as failed does not make it unfit for everything: it is the last candidate, and keeps its pin."""
    session = Session(store, RULE)
    drained = {provider_entry(name): 6 for name in ("aws", "bed1")}
    store.client.set(store.of(session.tenant).head, head(levers=drained))
    assert session.ask(Step("429", "az")) == ("az", Reason.RETRY, PinState.HELD)


@pytest.mark.parametrize(
    "step",
    [NO_STEP, Step("success", "az"), Step("Success", "az"), Step(None, "az", 1), Step("429", "bed1"), Step("503")],
)
def test_other_steps_follow_the_pin(store: Store, step: Step) -> None:
    """Nothing failed, or another provider than the pinned one; a failure without a provider and without a rule."""
    session = Session(store, RULE)
    assert session.ask(step) == ("az", Reason.STICKY, PinState.HELD)


def test_a_pin_to_a_fallback_provider_is_left_alike(store: Store) -> None:
    """The pinned provider need not be in the pool, and the failed one need not be in the policy any more."""
    session = Session(store, RULE)
    session.ask(Step("429", "az"))
    assert session.ask(Step("429", "bed1", 1))[0] == "az"
    session.stored = policy("aws", "bed1", sticky=Sticky(ttl_ms=30 * MINUTE))
    assert session.ask(Step("429", "az", 2)) == ("aws", Reason.WEIGHTED, PinState.LEFT)
    assert session.last()["pin_cause"] == "failed"


def test_a_look_says_it_before(store: Store) -> None:
    """A preview chooses as the request would, and moves no pin."""
    session = Session(store, RULE)
    for _ in range(2):
        looked = session.preview(Step("429", "az"))
        assert (looked.pin, looked.reason, looked.seen.pin_failed) == (PinState.LEFT, Reason.FALLBACK, True)


def test_the_cause_of_other_moves_is_the_verdict(store: Store) -> None:
    """A drained provider, and one that the policy has not any more."""
    session = Session(store)
    store.client.set(store.of(session.tenant).head, head(levers={provider_entry("az"): 6}))
    assert session.ask()[2] is PinState.LEFT
    assert session.last()["pin_cause"] == "drained"
    session.stored = policy("bed1", sticky=Sticky(ttl_ms=30 * MINUTE))
    assert session.ask()[2] is PinState.LEFT
    assert session.last()["pin_cause"] == "not_a_candidate"


def test_rows_of_one_batch_do_not_share_the_report(store: Store) -> None:
    """A row behind one that reports a failure follows its own pin."""
    session = Session(store, RULE)
    steps = [Step("429", "az"), NO_STEP, Step("429", "az"), NO_STEP]
    for n in range(1, 5):
        store.one(request(session.tenant, f"pin{n}", session=f"s{n}"), session.stored)
    asks = [
        Ask(replace(request(session.tenant, f"b{n}", session=f"s{n}"), step=step), session.stored)
        for n, step in enumerate(steps, 1)
    ]
    outcomes = store.decide(*asks)
    assert [o.pin for o in outcomes if isinstance(o, Admitted)] == [PinState.LEFT, PinState.HELD] * 2


def test_a_repeated_step_is_replayed(store: Store) -> None:
    """The step is part of the identity: its repeat is the same decision, and moves no pin again."""
    session = Session(store, RULE)
    wanted = replace(request(session.tenant, "step", session="s"), step=Step("429", "az"))
    assert isinstance(store.one(wanted, session.stored), Admitted)
    again = store.one(wanted, session.stored)
    assert isinstance(again, Replay)
    assert again.remembered.provider_id == "bed1"
    assert isinstance(store.one(replace(wanted, fingerprint=bytes(8)), session.stored), Conflict)
