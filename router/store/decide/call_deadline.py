"""The deadlines of one call in flight: each row has its own; the call's own decides whether the lane is down."""

import asyncio
from typing import Protocol

from router.store.decide.batch import Batch

_LOOK_S = 0.005
_STALL_S = 0.005


class Watched(Protocol):
    """The lane, as far as `CallDeadlines` uses it."""

    loop: asyncio.AbstractEventLoop
    deadline_s: float

    def missed(self, batches: list[Batch]) -> None:
        """A further deadline of the call has passed."""

    def expire(self, flying: list[Batch]) -> None:
        """Answer the rows whose own deadline has passed."""


class CallDeadlines:
    """Checks one call in flight until it is cancelled: when its first row expires, and every few ms from then on."""

    __slots__ = ("_batches", "_check_at", "_due", "_handle", "_lane", "_own_stall")

    def __init__(self, lane: Watched, batches: list[Batch]) -> None:
        self._lane = lane
        self._batches = batches
        self._own_stall = False
        self._due = lane.loop.time() + lane.deadline_s
        first = min((b.waiting[0].expires / 1000 for b in batches if b.waiting), default=self._due)
        self._check_at = min(first, self._due)
        self._handle = lane.loop.call_at(self._check_at, self._check)

    def cancel(self) -> None:
        """The call has returned."""
        self._handle.cancel()

    def _check(self) -> None:
        lane = self._lane
        now = lane.loop.time()
        if not self._own_stall and now - self._check_at > _STALL_S:
            # This pod itself stood still: the reply may be in the socket already, so read it before counting the call
            # as missed.
            self._own_stall = True
            self._due = max(self._due, now + _STALL_S)
            self._handle = lane.loop.call_later(_STALL_S, self._check)
            return
        if now >= self._due:
            self._due += lane.deadline_s
            lane.missed(self._batches)
        lane.expire(self._batches)
        self._handle = lane.loop.call_later(_LOOK_S, self._check)
