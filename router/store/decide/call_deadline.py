"""The deadlines of one call in flight: each row has its own; the call's own decides whether the lane is down.

A deadline cancels nothing on the wire. It answers callers and counts against the lane; the call stays in flight, and
its late reply is read and matched as usual. A call that stays late misses a further deadline every `deadline_s`.
"""

import asyncio
from typing import Protocol

from router.store.decide.batch import Batch

_CHECK_EVERY_S = 0.005
_STALL_S = 0.005


class Watched(Protocol):
    """The lane, as far as `CallDeadlines` uses it."""

    loop: asyncio.AbstractEventLoop
    deadline_s: float

    def missed(self, batches: list[Batch]) -> None:
        """A further deadline of the call has passed."""

    def expire(self) -> None:
        """Answer the rows whose own deadline has passed."""


class CallDeadlines:
    """Checks one call in flight until it is cancelled: when its first row expires, and every few ms from then on."""

    __slots__ = ("_batches", "_check_at", "_due", "_handle", "_lane", "_stalled")

    def __init__(self, lane: Watched, batches: list[Batch]) -> None:
        self._lane = lane
        self._batches = batches
        self._stalled = False
        self._due = lane.loop.time() + lane.deadline_s
        first = min((b.waiting[0].expires / 1000 for b in batches if b.waiting), default=self._due)
        self._check_at = min(first, self._due)
        self._handle = lane.loop.call_at(self._check_at, self._check)

    def cancel(self) -> None:
        """Stop: the call has returned."""
        self._handle.cancel()

    def _check(self) -> None:
        lane = self._lane
        now = lane.loop.time()
        if not self._stalled and now - self._check_at > _STALL_S:
            # This check is late, so the pod itself was stalled. The reply may be in the socket already: the event loop
            # reads it before the deadline counts. Only once per call, or a slow pod would never notice a slow Redis.
            self._stalled = True
            self._due = max(self._due, now + _STALL_S)
            self._handle = lane.loop.call_later(_STALL_S, self._check)
            return
        if now >= self._due:
            self._due += lane.deadline_s
            lane.missed(self._batches)
        lane.expire()
        self._handle = lane.loop.call_later(_CHECK_EVERY_S, self._check)


class RowDeadlines:
    """Checks the rows that wait for a connection, every few ms until it is cancelled; no call is in flight."""

    __slots__ = ("_handle", "_lane")

    def __init__(self, lane: Watched) -> None:
        self._lane = lane
        self._handle = lane.loop.call_later(_CHECK_EVERY_S, self._check)

    def cancel(self) -> None:
        """Stop."""
        self._handle.cancel()

    def _check(self) -> None:
        self._lane.expire()
        self._handle = self._lane.loop.call_later(_CHECK_EVERY_S, self._check)
