"""The deadlines of a call in flight, on a clock set by hand."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from router.store.decide.batch import Batch
from router.store.decide.call_deadline import CallDeadlines

DEADLINE_S = 0.05


class Clock:
    """What a watch needs of a loop: a time, and the next thing to be called."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due = 0.0
        self.call: Callable[[], None] = lambda: None

    def time(self) -> float:
        """Now."""
        return self.now

    def call_at(self, due: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """One timer: a watch never has two."""
        self.due, self.call = due, call
        return cast(asyncio.TimerHandle, None)

    def call_later(self, delay: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Likewise."""
        return self.call_at(self.now + delay, call)

    def fire(self, late: float = 0.0) -> None:
        """The timer, so late."""
        self.now = self.due + late
        self.call()


class Lane:
    """Hears of missed deadlines, and when."""

    deadline_s = DEADLINE_S

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop: Any = self.clock
        self.heard: list[float] = []

    def missed(self, _batches: list[Batch]) -> None:
        """One more."""
        self.heard.append(round(self.clock.now - 100.0, 3))

    def expire(self) -> None:
        """There are no rows."""


def test_every_deadline_is_told_when_it_has_passed() -> None:
    """At once, twice, three times the deadline; not before."""
    lane = Lane()
    CallDeadlines(lane, [])
    while len(lane.heard) < 3:
        lane.clock.fire()
    assert all(n * DEADLINE_S <= at < n * DEADLINE_S + 0.01 for n, at in enumerate(lane.heard, start=1))


def test_a_pod_that_stood_still_looks_for_the_reply_first() -> None:
    """A look that comes late itself says nothing of Redis: the loop reads its sockets before the deadline counts."""
    lane = Lane()
    CallDeadlines(lane, [])
    lane.clock.fire(late=2.0)
    assert lane.heard == []
    lane.clock.fire()
    assert len(lane.heard) == 1


def test_it_stands_still_once_only() -> None:
    """A pod that is always late must not wait for Redis for ever."""
    lane = Lane()
    CallDeadlines(lane, [])
    lane.clock.fire(late=2.0)
    lane.clock.fire(late=2.0)
    assert len(lane.heard) == 1
