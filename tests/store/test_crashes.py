"""Clients that die and scripts that break at every step: a repeat gets one decision, one record, and is charged once.

The state machines of test_machine run here with a crash drawn before a call: its answer is lost, or one of the calls
that the script makes to Redis raises. Then the client asks again, as callers and consumers do, and the models must hold
as if nothing had been. (What Redis does between its own writes no client sees: a script runs whole or was never begun.
A fault after a row's audit record needs a key of a wrong type there; test_bad_rows has those.)
"""

from functools import cache

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import rule
from redis import Redis

from router.domain.decide.outcome import Admitted, Outcome, Replay, RowFault
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Move, Moved, MoveFault, MoveOutcome, NotMoved
from router.store.decisions import decide_script
from router.store.scripts.load import Script
from router.store.tasks.store import settle_script
from tests.store import machine
from tests.store.harness import TEST_CLOCK, Ask, Client, Store, request, undispatched

# Raises at one call, unless the row's record is written: from there on it counts.
_BREAKING = """
local true_redis, calls, told = redis, 0, false
local redis = setmetatable({
  call = function(name, ...)
    calls = calls + 1
    if calls == BREAK_AT and not told then error({ err = 'ERR injected' }) end
    told = told or name == 'XADD'
    return true_redis.call(name, ...)
  end,
}, { __index = true_redis })
"""
# A library's locals outlive its call, which begins with a look at the clock.
_EACH_CALL = """
local look = server_time
server_time = function()
  calls, told = 0, false
  return look()
end
"""
MAX_CALLS = 30
LOST = 0
"""The answer of a call that was made is lost; a greater number: the script's call that raises."""


@cache
def breaking(at: int) -> tuple[Script, Script]:
    """Decide and settle that raise at that call (the first one is the test's clock)."""
    clock = {"clock": _BREAKING.replace("BREAK_AT", str(at)) + TEST_CLOCK + _EACH_CALL}
    return decide_script(replace=clock), settle_script(replace=clock)


class Crashing(Store):
    """A store whose clients crash at `crash` and ask again; None: they do not."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.crash: int | None = None
        self.crashes = 0
        self._healthy = self.decide_script, self.settle_script

    def crash_at(self, crash: int | None) -> None:
        """From now on. Loading a library is a change, which is not to be taken for a script's."""
        self.crash = crash
        if crash:
            for script in breaking(crash):
                self.load(script)

    def decide(self, *asks: Ask) -> list[Outcome]:
        """As a caller sees it who repeats what was not answered."""
        crash = self.crash
        if crash is None:
            return super().decide(*asks)
        if crash != LOST:
            return [self._decided(ask, crash) for ask in asks]
        unheard = super().decide(*asks)
        return [_same(a, b) for a, b in zip(unheard, super().decide(*asks), strict=True)]

    def _decided(self, ask: Ask, at: int) -> Outcome:
        self.decide_script, _ = breaking(at)
        (unheard,) = super().decide(ask)
        self.decide_script, _ = self._healthy
        (heard,) = super().decide(ask)
        if isinstance(unheard, RowFault):
            self.crashes += 1
            assert "injected" in unheard.message
            return heard
        return _same(unheard, heard)

    def settle(self, *moves: Move) -> list[MoveOutcome]:
        """As a consumer sees it who is handed again what was not acknowledged."""
        crash = self.crash
        if crash is None:
            return super().settle(*moves)
        if crash != LOST:
            return [self._settled(move, crash) for move in moves]
        unheard = super().settle(*moves)
        assert all(isinstance(again, NotMoved) for again in super().settle(*moves))
        return unheard

    def _settled(self, move: Move, at: int) -> MoveOutcome:
        _, self.settle_script = breaking(at)
        (unheard,) = super().settle(move)
        _, self.settle_script = self._healthy
        (heard,) = super().settle(move)
        if isinstance(unheard, MoveFault):
            self.crashes += 1
            return heard
        assert isinstance(heard, NotMoved)
        return unheard


def _same(unheard: Outcome, heard: Outcome) -> Outcome:
    """What nobody heard, once it is seen that the repeat changes nothing.

    A refusal is repeated after the rest of its batch: for another reason, perhaps, or as the replay of a later row that
    was admitted under the same name; but nothing is made anew.
    """
    if isinstance(unheard, Admitted):
        assert isinstance(heard, Replay)
        assert heard.remembered.decision_id == unheard.decision_id
    else:
        assert not isinstance(heard, Admitted)
    return unheard


CRASHES = some.one_of(some.none(), some.just(LOST), some.integers(2, MAX_CALLS))


class CrashingDecisions(machine.Decisions):
    """Any step may be one at which a client dies or the script breaks."""

    made_by = Crashing

    @rule(crash=CRASHES)
    def crash(self, crash: int | None) -> None:
        """From now on every client crashes there once."""
        assert isinstance(self.store, Crashing)
        self.store.crash_at(crash)


class CrashingBreakers(machine.Breakers):
    """Likewise for breakers, probes and what results teach them."""

    made_by = Crashing

    @rule(crash=CRASHES)
    def crash(self, crash: int | None) -> None:
        """From now on every client crashes there once."""
        assert isinstance(self.store, Crashing)
        self.store.crash_at(crash)


SHORT = settings(machine.SHORT, max_examples=40)


def test_decisions_follow_the_model_over_crashes(single: Redis) -> None:
    """One decision, one audit record, charged once, whatever died on the way; results alike."""
    machine.run(CrashingDecisions, single, SHORT, minimum=1_200)


def test_breakers_follow_the_model_over_crashes(single: Redis) -> None:
    """A probe is taken once and a result counts once."""
    machine.run(CrashingBreakers, single, SHORT, minimum=1_200)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("which", [CrashingDecisions, CrashingBreakers])
def test_crashes_for_long(single: Redis, which: type[CrashingDecisions | CrashingBreakers]) -> None:
    """The same for 100,000 steps each."""
    machine.run(which, single, settings(machine.LONG, max_examples=2_500), minimum=100_000)


def test_the_injected_faults_are_felt(single: Redis) -> None:
    """A request of every feature meets a fault at each of its calls up to its record, and a result likewise."""
    store = Crashing(single)
    told = 0
    for at in range(2, MAX_CALLS):
        store.crash, before = at, store.crashes
        tenant = store.tenant()
        wanted = request(tenant, "r", user="u", session="s")
        (made,) = store.decide(Ask(wanted, machine.Decisions.stored))
        assert isinstance(made, Admitted)
        assert store.actions(tenant).count("decision.made") == 1
        (moved,) = store.settle(undispatched(tenant, made.decision_id, BreakerVerdict.NEITHER))
        assert isinstance(moved, Moved)
        assert store.actions(tenant).count("result.settled") == 1
        told += store.crashes - before
    assert told >= 12
