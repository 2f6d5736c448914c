"""The window of a publisher: messages in flight, those that wait for a place, and those that wait for their next try.

`publisher` has the life of a message. A refused message takes no place in the window while it waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import chain

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.publishing.pending import Pending
from router.bus.publishing.trouble import TroubleWatch
from router.errors import BusError

_SWEEP_S = 0.1


class Window:
    """Sends at most `size` messages ahead of their acks. `inbox` is the subject of the acks, without its last token.

    `give_up` ends a message that is too old; it is called with the reason. All times are loop time in seconds.
    """

    def __init__(
        self,
        bus: Bus,
        inbox: bytes,
        trouble: TroubleWatch,
        give_up: Callable[[Pending, str], None],
        *,
        size: int,
        max_waiting: int,
        max_waiting_bytes: int,
        ack_timeout_s: float,
    ) -> None:
        self._bus = bus
        self._inbox = inbox
        self._trouble = trouble
        self._give_up = give_up
        self._size = size
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._ack_timeout_s = ack_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_bytes = 0
        self.waiting: deque[Pending] = deque()
        self.in_flight: dict[bytes, Pending] = {}
        self.refused: dict[bytes, Pending] = {}
        self.resent = 0

    @property
    def pending(self) -> int:
        """The number of messages that are neither taken nor given up yet."""
        return len(self.waiting) + len(self.in_flight) + len(self.refused)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use the loop for timers."""
        self._loop = loop

    def clear(self) -> list[Pending]:
        """Stop the timer, and return and forget all messages."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest = [*self.in_flight.values(), *self.refused.values(), *self.waiting]
        self.in_flight.clear()
        self.refused.clear()
        self.waiting.clear()
        return rest

    def is_full(self, size: int) -> bool:
        """Whether a message of `size` bytes may not wait beside the others."""
        return len(self.waiting) >= self._max_waiting or self._waiting_bytes + size > self._max_waiting_bytes

    def enqueue(self, entry: Pending) -> None:
        """Send a message at once if the window has a place, else later."""
        if not self.waiting and len(self.in_flight) < self._size and self._bus.connected:
            self.send(entry)
            return
        self.waiting.append(entry)
        self._waiting_bytes += len(entry.payload)
        self._arm()

    def pump(self) -> None:
        """Send waiting messages while the window has places."""
        while self.waiting and len(self.in_flight) < self._size and self._bus.connected:
            entry = self.waiting.popleft()
            self._waiting_bytes -= len(entry.payload)
            self.send(entry)

    def send(self, entry: Pending) -> None:
        """Send a message, or keep it for a later try if the connection does not take it."""
        if not entry.token:
            self._next += 1
            entry.token = b"%x" % self._next
        try:
            self._bus.send(
                wire.publish(entry.subject, reply=self._inbox + entry.token, block=entry.block, payload=entry.payload)
            )
        except BusError as error:  # the buffer is full, or there was no connection yet
            entry.reason = str(error)
            entry.resend_at = self._now() + _SWEEP_S
            self.refused[entry.token] = entry
        else:
            entry.tries += 1
            entry.resend_at = self._now() + self._ack_timeout_s
            self.in_flight[entry.token] = entry
        self._arm()

    def resend(self, entry: Pending) -> None:
        """Send a message once more, and count it."""
        self.resent += 1
        self.send(entry)

    def take(self, entry: Pending) -> None:
        """Forget a message that was sent."""
        if self.in_flight.pop(entry.token, None) is None:
            self.refused.pop(entry.token, None)

    def retry_later(self, entry: Pending, reason: str) -> None:
        """Send a refused message again after a pause, which grows with its tries."""
        entry.reason = reason
        entry.resend_at = self._now() + min(0.05 * 2**entry.tries, 1.0)
        if self.in_flight.pop(entry.token, None) is not None:
            self.refused[entry.token] = entry

    def reconnected(self) -> None:
        """Send the messages in flight again, whose acks are lost with the old connection, and the waiting ones."""
        now = self._now()
        for entry in self.in_flight.values():
            entry.resend_at = 0.0
            entry.unanswered = True
        for entry in (*self.in_flight.values(), *self.refused.values(), *self.waiting):
            entry.since = now
        self.pump()

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _arm(self) -> None:
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Send messages without an ack again; fail messages that are too old; report streams that store nothing."""
        self._timer = None
        now = self._now()
        for entry in [e for e in self.in_flight.values() if e.resend_at <= now or e.give_up_at <= now]:
            entry.unanswered = True
            if now >= entry.give_up_at:
                del self.in_flight[entry.token]
                self._give_up(entry, entry.reason)
            elif self._bus.connected:
                self.resend(entry)
        for entry in [e for e in self.refused.values() if e.resend_at <= now or e.give_up_at <= now]:
            if now >= entry.give_up_at:
                del self.refused[entry.token]
                self._give_up(entry, entry.reason)
            elif self._bus.connected and len(self.in_flight) < self._size:
                del self.refused[entry.token]
                self.resend(entry)
        while self.waiting and now >= self.waiting[0].give_up_at:
            entry = self.waiting.popleft()
            self._waiting_bytes -= len(entry.payload)
            self._give_up(entry, entry.reason if entry.tries else "never sent")
        self.pump()
        if self._bus.connected:
            self._trouble.scan(now, chain(self.refused.values(), self.in_flight.values()), self.waiting)
        if self.in_flight or self.waiting or self.refused:
            self._arm()
