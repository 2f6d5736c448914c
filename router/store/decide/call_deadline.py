"""The deadlines of a lane's calls: each row has its own; the call's own decides whether the lane is down.

A deadline cancels nothing on the wire. It answers callers and counts against the lane; the call stays in flight, and
its late reply is read and matched as usual. A call that stays late misses a further deadline every `deadline_s`.
"""

import asyncio
import math
from collections.abc import Sequence

from router.domain.decide.outcome import Unavailable
from router.store.decide.availability import Availability
from router.store.decide.batch import Batch
from router.store.decide.row_queue import RowQueue

_CHECK_EVERY_S = 0.005
_STALL_S = 0.005


class CallDeadlines:
    """Checks one call at a time: when its first row expires, and every few ms from then on.

    All calls share one timer. A call that ends leaves it running, and the next one moves it only to an earlier moment,
    so that a call which is answered in time costs no timer.
    """

    __slots__ = (
        "_availability",
        "_check_at",
        "_deadline_s",
        "_due",
        "_flying",
        "_loop",
        "_queue",
        "_stalled",
        "_timer",
        "_watching",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deadline_s: float, availability: Availability, queue: RowQueue
    ) -> None:
        self._loop = loop
        self._deadline_s = deadline_s
        self._availability = availability
        self._queue = queue
        self._flying: Sequence[Batch] = ()
        self._watching = False
        self._stalled = False
        self._due = self._check_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, batches: Sequence[Batch], now: float) -> None:
        """Watch a call that is sent now."""
        self._flying = batches
        self._due = check_at = now + self._deadline_s
        for b in batches:
            check_at = min(check_at, b.waiting[0].expires / 1000)
        self._stalled = False
        self._watch(check_at)

    def start_waiting(self, now: float) -> None:
        """Watch the rows that wait for a connection; no call is in flight."""
        self._flying = ()
        self._due = math.inf
        self._stalled = False
        self._watch(now + _CHECK_EVERY_S)

    def stop(self) -> None:
        """The call has returned."""
        self._watching = False
        self._flying = ()

    def close(self) -> None:
        """Stop, and cancel the timer."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, check_at: float) -> None:
        self._watching = True
        self._check_at = check_at
        timer = self._timer
        if timer is None or timer.when() > check_at:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(check_at, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._watching:
            return
        now = self._loop.time()
        if now < self._check_at:
            # The timer was set for an earlier call.
            self._watch(self._check_at)
            return
        if not self._stalled and now - self._check_at > _STALL_S:
            # This check is late, so the pod itself was stalled. The reply may be in the socket already: the event loop
            # reads it before the deadline counts. Only once per call, or a slow pod would never notice a slow Redis.
            self._stalled = True
            self._due = max(self._due, now + _STALL_S)
            self._watch(now + _STALL_S)
            return
        if now >= self._due:
            self._due += self._deadline_s
            self._missed()
        self._expire(now * 1000)
        if self._watching:
            self._watch(now + _CHECK_EVERY_S)

    def _missed(self) -> None:
        """Answer the rows of the call: a further deadline has passed. After several in a row, the lane is down."""
        for b in self._flying:
            b.answer(Unavailable(sent=True))
        if self._availability.deadline_missed():
            self._queue.refuse()

    def _expire(self, now_ms: float) -> None:
        """Answer the rows whose own deadline has passed: those in flight, and those that wait behind a late call or for
        a connection.

        Waiting rows stay in their batch; the script refuses them as late when it is sent.
        """
        for sent, batches in ((True, self._flying), (False, self._queue.batches())):
            for w in [w for batch in batches for w in batch.waiting if w.expires <= now_ms]:
                w.tell(Unavailable(sent=sent))
