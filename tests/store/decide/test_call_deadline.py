"""The deadlines of calls in flight, on a clock set by hand."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from router.domain.decide.outcome import Outcome, Unavailable
from router.store.decide.availability import Availability
from router.store.decide.batch import Batch
from router.store.decide.call_deadline import CallDeadlines
from router.store.decide.row_queue import RowQueue

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
    """The availability and the queue of a lane: when a deadline was missed, and when rows were looked at."""

    def __init__(self, missed_until_down: int = 1_000) -> None:
        self.clock = Clock()
        self.heard: list[float] = []
        self.looked: list[float] = []
        self.refused = 0
        self.waiting: list[Batch] = []
        self._missed_until_down = missed_until_down

    def deadline_missed(self) -> bool:
        """One more."""
        self.heard.append(round(self.clock.now - 100.0, 3))
        return len(self.heard) >= self._missed_until_down

    def batches(self) -> list[Batch]:
        """Those that wait."""
        self.looked.append(round(self.clock.now - 100.0, 3))
        return self.waiting

    def refuse(self) -> None:
        """The lane is down."""
        self.refused += 1

    def watch(self) -> CallDeadlines:
        """Its deadlines."""
        loop, availability, queue = cast(Any, self.clock), cast(Availability, self), cast(RowQueue, self)
        return CallDeadlines(loop, DEADLINE_S, availability, queue)


class Row:
    """A row that keeps its answers."""

    def __init__(self, expires_ms: float = 1e9) -> None:
        self.expires = expires_ms
        self.told: list[Outcome] = []

    def tell(self, what: Outcome) -> None:
        """Keep it."""
        self.told.append(what)


def batch(*rows: Row) -> Batch:
    """A batch of these."""
    made = Batch()
    made.waiting = cast(Any, list(rows))
    return made


def started(lane: Lane) -> CallDeadlines:
    """The watch of a call that is sent now."""
    deadlines = lane.watch()
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
    deadlines = lane.watch()
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
    deadlines.start([batch(Row(100_010.0))], lane.clock.now)
    lane.clock.run(100.012)
    assert lane.looked == [0.01]
    assert lane.heard == []


def test_who_waits_for_a_connection_misses_no_deadline() -> None:
    """Rows are looked at every few ms; there is no call that could be late."""
    lane = Lane()
    lane.watch().start_waiting(lane.clock.now)
    lane.clock.run(100.5)
    assert lane.heard == []
    assert len(lane.looked) > 50


def test_a_closed_watch_has_no_timer() -> None:
    """Nothing is left on the loop."""
    lane = Lane()
    started(lane).close()
    assert lane.clock.timers == []


def test_rows_are_answered_by_where_they_are() -> None:
    """In flight: they may be executed. Behind: nothing was sent. Those whose time is not over wait on."""
    lane = Lane()
    early, late, behind, patient = Row(100_010.0), Row(), Row(100_010.0), Row()
    lane.waiting = [batch(behind, patient)]
    deadlines = lane.watch()
    deadlines.start([batch(early), batch(late)], lane.clock.now)
    lane.clock.run(100.012)
    assert (early.told, behind.told) == ([Unavailable(sent=True)], [Unavailable(sent=False)])
    assert (late.told, patient.told) == ([], [])
    lane.clock.run(100.056)  # looked at every 5 ms
    assert late.told == [Unavailable(sent=True)]
    assert patient.told == []


def test_several_missed_deadlines_refuse_the_queue() -> None:
    """Once the lane is down, and not before."""
    lane = Lane(missed_until_down=3)
    started(lane)
    lane.clock.run(100.14)
    assert (len(lane.heard), lane.refused) == (2, 0)
    lane.clock.run(100.16)
    assert (len(lane.heard), lane.refused) == (3, 1)


def test_rows_of_a_call_that_has_returned_are_nobodys() -> None:
    """A watch of waiting rows does not answer those of the call before."""
    lane = Lane()
    deadlines, row = lane.watch(), Row(100_010.0)
    deadlines.start([batch(row)], lane.clock.now)
    deadlines.stop()
    deadlines.start_waiting(lane.clock.now)
    lane.clock.run(100.1)
    assert row.told == []
