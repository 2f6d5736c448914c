"""The deadlines of calls in flight, on a clock set by hand."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from router.store.decide.batch import Batch
from router.store.decide.call_deadline import CallDeadlines

DEADLINE_S = 0.05


class Timer:
    """A timer of the clock."""

    def __init__(self, clock: "Clock", due: float, call: Callable[[], None]) -> None:
        self.clock, self.due, self.call = clock, due, call

    def when(self) -> float:
        """When it is due."""
        return self.due

    def cancel(self) -> None:
        """Take it off the clock."""
        self.clock.timers.remove(self)


class Clock:
    """What a watch needs of a loop: a time, and timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.made = 0

    def time(self) -> float:
        """Now."""
        return self.now

    def call_at(self, due: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """A watch never has two timers."""
        assert not self.timers
        self.made += 1
        self.timers.append(Timer(self, due, call))
        return cast(asyncio.TimerHandle, self.timers[0])

    def fire(self, late: float = 0.0) -> None:
        """The timer, so late."""
        timer = self.timers.pop()
        self.now = timer.due + late
        timer.call()

    def run(self, until: float) -> None:
        """Every timer up to a moment, in time."""
        while self.timers and self.timers[0].due <= until:
            self.fire()
        self.now = until


class Lane:
    """Hears of missed deadlines and of rows to look at, and when."""

    deadline_s = DEADLINE_S

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop: Any = self.clock
        self.heard: list[float] = []
        self.looked: list[float] = []

    def missed(self) -> None:
        """One more."""
        self.heard.append(round(self.clock.now - 100.0, 3))

    def expire(self) -> None:
        """Rows may have expired."""
        self.looked.append(round(self.clock.now - 100.0, 3))


def started(lane: Lane) -> CallDeadlines:
    """The watch of a call that is sent now."""
    deadlines = CallDeadlines(lane)
    deadlines.start([], lane.clock.now)
    return deadlines


def test_every_deadline_is_told_when_it_has_passed() -> None:
    """At once, twice, three times the deadline; not before."""
    lane = Lane()
    started(lane)
    while len(lane.heard) < 3:
        lane.clock.fire()
    assert all(n * DEADLINE_S <= at < n * DEADLINE_S + 0.01 for n, at in enumerate(lane.heard, start=1))


def test_a_pod_that_stood_still_looks_for_the_reply_first() -> None:
    """A look that comes late itself says nothing of Redis: the loop reads its sockets before the deadline counts."""
    lane = Lane()
    started(lane)
    lane.clock.fire(late=2.0)
    assert lane.heard == []
    lane.clock.fire()
    assert len(lane.heard) == 1


def test_it_stands_still_once_only() -> None:
    """A pod that is always late must not wait for Redis for ever."""
    lane = Lane()
    started(lane)
    lane.clock.fire(late=2.0)
    lane.clock.fire(late=2.0)
    assert len(lane.heard) == 1


def test_each_call_may_stand_still_once() -> None:
    """What a pod did during one call says nothing of the next."""
    lane = Lane()
    deadlines = started(lane)
    lane.clock.fire(late=2.0)
    deadlines.stop()
    deadlines.start([], lane.clock.now)
    lane.clock.run(lane.clock.now + DEADLINE_S - 0.001)
    lane.clock.fire(late=2.0)
    assert lane.heard == []


def test_a_call_that_has_returned_misses_nothing() -> None:
    """Its timer finds nothing to do, and is not set again."""
    lane = Lane()
    deadlines = started(lane)
    deadlines.stop()
    lane.clock.fire()
    assert (lane.heard, lane.looked, lane.clock.timers) == ([], [], [])


def test_calls_that_are_answered_in_time_share_a_timer() -> None:
    """A thousand calls in a row, 1 ms each: a timer for each deadline's length, not for each call."""
    lane = Lane()
    deadlines = CallDeadlines(lane)
    for n in range(1_000):
        deadlines.start([], lane.clock.now)
        lane.clock.run(100.0 + (n + 1) / 1_000)
        deadlines.stop()
    assert lane.heard == []
    assert lane.clock.made <= 1 / DEADLINE_S + 2


def test_the_deadline_of_a_later_call_is_its_own() -> None:
    """The timer of the call before comes too early for it, and is set again."""
    lane = Lane()
    deadlines = started(lane)
    lane.clock.run(100.03)
    deadlines.stop()
    deadlines.start([], lane.clock.now)
    lane.clock.run(100.079)
    assert lane.heard == []
    lane.clock.run(100.081)
    assert lane.heard == [0.08]


def test_a_row_that_ends_earlier_moves_the_timer() -> None:
    """A row may have waited before; it is looked at when its own time is over."""
    lane = Lane()
    deadlines = started(lane)
    deadlines.stop()
    row = Batch()
    row.waiting = cast(Any, [SimpleNamespace(expires=100_010.0)])
    deadlines.start([row], lane.clock.now)
    lane.clock.run(100.012)
    assert lane.looked == [0.01]
    assert lane.heard == []


def test_who_waits_for_a_connection_misses_no_deadline() -> None:
    """Rows are looked at every few ms; there is no call that could be late."""
    lane = Lane()
    CallDeadlines(lane).start_waiting(lane.clock.now)
    lane.clock.run(100.5)
    assert lane.heard == []
    assert len(lane.looked) > 50


def test_a_closed_watch_has_no_timer() -> None:
    """Nothing is left on the loop."""
    lane = Lane()
    started(lane).close()
    assert lane.clock.timers == []
