"""A lane carries decide rows to one Redis node: rows of one tick travel together, with one pipeline in flight.

A row is packed into an open batch (`RowQueue`), then sent (`Calls`), then answered by its reply (`Delivery`), or as
`Unavailable` at its deadline (`CallDeadlines`). The states of a lane:

    idle ──submit──▶ flying ──reply──▶ flying (with the rows that arrived meanwhile) or idle
                       │ several deadlines missed in a row, or connection lost
                       ▼
                     down: rows are refused at once ──PING answered in time──▶ idle

Why it works this way:

- One pipeline in flight: replies arrive in the order of the calls, no partition has two calls at once, and rows that
  arrive meanwhile share the next call. Under load calls become larger instead of more numerous.
- A request never owns the connection, and no command is cancelled on the wire: a late reply would reach the next
  caller, who may belong to another tenant. So a timeout answers the caller and leaves the call in flight.
- Such a call may still be executed. Its rows carry `not_after` (Redis time): a row that starts later writes nothing.
- Every row carries a nonce, which its reply repeats. A foreign nonce drops the connection.
- A slow Redis makes the lane down, a short pause does not: it takes several missed deadlines, of one call or of
  consecutive calls. Rows that wait behind a late call are answered at their own deadlines.

A pod that crashes loses its waiting rows, and the replies of the rows in flight. The retry of a row that was executed
gets the stored answer.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from router.domain.decide.outcome import RowFault, Unavailable
from router.errors import OutcomeUnknown, StoreError
from router.store.decide.availability import Availability, LaneHooks
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.call_deadline import CallDeadlines, RowDeadlines
from router.store.decide.calls import Calls, LaneSettings
from router.store.decide.clock import RedisClock
from router.store.decide.delivery import Delivery
from router.store.decide.row_queue import RowQueue
from router.store.decide.rows import RowPacker
from router.store.packing import NO_STAMP
from router.store.scripts.load import Script
from router.store.servers.link import Link

log = logging.getLogger(__name__)


class Lane:
    """The rows of one node. Call `submit` from the event loop only; it never waits and never raises."""

    def __init__(
        self,
        link: Link,
        packer: RowPacker,
        script: Script,
        settings: LaneSettings,
        hooks: LaneHooks,
        redirect: Callable[[Batch, ResponseError], bool],
    ) -> None:
        self._link = link
        self._script = script
        self._settings = settings
        self._hooks = hooks
        self.loop = asyncio.get_running_loop()
        self.deadline_s = settings.deadline_ms / 1000
        self._clock = RedisClock(self.loop, hooks.on_clock_step)
        self.now_ms = self._clock.now_ms
        self._calls = Calls(link, script, settings, self.now_ms)
        self._queue = RowQueue(packer, settings)
        self._availability = Availability(settings, hooks)
        self._delivery = Delivery(
            settings, hooks, self._availability, self._clock, redirect=redirect, resubmit=self.submit
        )
        self._task: asyncio.Task[None] | None = None
        # Callers whose rows are sent, or whose reply is not yet delivered: they get an answer even if the lane breaks
        # or closes.
        self._flying: list[Batch] = []
        self._closing = False
        self._opening = False

    @property
    def down(self) -> bool:
        """Whether rows are refused at once."""
        return self._availability.down

    def submit(self, w: WaitingRow) -> None:
        """Queue a row. Rows of one group travel in one call (a Cluster's call has one slot)."""
        if self._availability.down or self._clock.offset_ms is None:
            self._start()
            if self._availability.down or self.loop.time() * 1000 >= w.expires:
                self.loop.call_soon(w.tell, Unavailable(sent=False), NO_STAMP)
                return
        try:
            self._queue.add(w, w.expires + (self._clock.offset_ms or 0.0))
        except Exception as bug:  # one request's bug must not cost the others their answers; it is logged whole
            log.exception("a row could not be packed")
            self.loop.call_soon(w.tell, RowFault(f"cannot be packed: {bug}"), NO_STAMP)
            return
        if self._task is None:
            self._start()

    def bound(self, w: WaitingRow) -> None:
        """Answer this row at its own deadline, which may end before those of rows that were submitted earlier."""
        self.loop.call_at(w.expires / 1000, self._overdue, w)

    def _overdue(self, w: WaitingRow) -> None:
        if not w.answered:
            w.tell(Unavailable(sent=any(w is row for batch in self._flying for row in batch.waiting)))

    def resend(self, batch: Batch) -> None:
        """Queue a batch that another node refused without executing it. Rows past their deadline are answered."""
        now = self.loop.time() * 1000
        if self._availability.down or self._closing or all(w.expires <= now for w in batch.waiting):
            batch.answer(Unavailable(sent=False))
            return
        self._queue.put(batch)
        self._start()

    async def open(self) -> None:
        """Connect; returns after the first try, successful or not."""
        if self._clock.offset_ms is None and self._task is None:
            # The link has one user at a time: no other task starts meanwhile.
            self._opening = True
            try:
                await self._ping()
            finally:
                self._opening = False
        if self._availability.down or not self._queue.empty:
            self._start()

    async def renew(self, make: Callable[[], AbstractConnection]) -> None:
        """Use connections that are made like this; see `Link.renew`."""
        await self._link.renew(make)

    def tick(self) -> None:
        """Ask for the time if nothing else is under way, so that an unused lane notices an outage, too.

        Rows that arrive meanwhile wait as for a call in flight.
        """
        if not self._availability.down:
            self._start(self._tick)

    async def _tick(self) -> None:
        started = self.loop.time()
        deadlines = CallDeadlines(self, [])
        try:
            await self._link.send([("TIME",)])
            (reply,) = await self._link.receive(1)
        except StoreError as fault:
            self._lost([], fault)
        else:
            if self._answered(started) <= self.deadline_s and not isinstance(reply, ResponseError):
                # Times of tasks are Redis time, also on a pod that decides nothing.
                self._clock.set(int(reply[0]), int(reply[1]), started)
        finally:
            deadlines.cancel()
        if self._availability.down:
            await self._recover()

    def _start(self, work: Callable[[], Coroutine[None, None, None]] | None = None) -> None:
        if self._task is None and not self._closing and not self._opening:
            self._task = self.loop.create_task((work or self._run)())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            log.error("the lane broke and starts again", exc_info=bug)
            self._queue.refuse()
            self._clock.forget()
        if bug is not None or task.cancelled():
            for batch in self._flying:
                batch.answer(Unavailable(sent=True))
        self._flying = []
        if not self._queue.empty:
            self._start()

    async def _run(self) -> None:
        """Send batches until there are none. Replies are delivered while Redis works on the next batch."""
        if (self._availability.down or self._clock.offset_ms is None) and not await self._recover():
            return
        # Let all rows of this tick join the first batch.
        await asyncio.sleep(0)
        executed: list[tuple[Batch, Any]] = []
        executed_at = 0.0
        while True:
            batches = self._queue.take()
            if not batches:
                self._delivery.deliver(executed, executed_at)
                executed = []
                if not self._queue.empty:
                    continue
                if not self._delivery.has_unused_jobs:
                    return
            started = self.loop.time()
            deadlines = CallDeadlines(self, batches)
            unlinks = self._delivery.take_unused_jobs()
            self._flying = [*batches, *(b for b, _ in executed)]
            try:
                await self._calls.send(batches, unlinks)
                previous, executed = executed, []
                self._delivery.deliver(previous, executed_at)
                replies = await self._calls.receive(batches, len(unlinks))
                if any(isinstance(reply, ReadOnlyError) for reply in replies):
                    # The demoted server kept our connection, and its address may lead to the new primary now.
                    await self._link.close()
            except StoreError as fault:
                await self._link.close()
                self._lost([*batches, *(b for b, _ in executed)], fault)
                await self._recover()
                return
            finally:
                deadlines.cancel()
            elapsed = self._answered(started)
            rows = sum(len(b.rows) for b in batches)
            self._queue.learn(elapsed * 1000, rows)
            self._hooks.on_call(self._script.name, elapsed, rows)
            executed, executed_at = list(zip(batches, replies, strict=True)), started
            if self._availability.down:
                # Answered, but only after several deadlines: the lane stays down until a ping is quick again.
                self._delivery.deliver(executed, executed_at)
                await self._recover()
                return

    def _answered(self, started: float) -> float:
        """Record that a call has its replies. Returns its duration in seconds."""
        elapsed = self.loop.time() - started
        if elapsed <= self.deadline_s:
            self._availability.answered_in_time()
        return elapsed

    def missed(self, batches: list[Batch]) -> None:
        """Answer the rows of a call when a further deadline has passed. After several in a row, the lane is down."""
        for b in batches:
            b.answer(Unavailable(sent=True))
        if self._availability.deadline_missed():
            self._queue.refuse()

    def expire(self) -> None:
        """Answer the rows whose own deadline has passed: those in flight, those whose reply waits to be delivered while
        the next call cannot be written, and those that wait behind a late call or a connection.

        Waiting rows stay in their batch; the script refuses them as late when it is sent.
        """
        now = self.loop.time() * 1000
        for sent, batches in ((True, self._flying), (False, self._queue.batches())):
            for w in (w for batch in batches for w in batch.waiting if w.expires <= now):
                w.tell(Unavailable(sent=sent))

    def _lost(self, batches: list[Batch], fault: StoreError) -> None:
        """Answer the rows in flight and the waiting rows: the connection is lost."""
        self._availability.set_down(str(fault))
        sent = isinstance(fault, OutcomeUnknown)
        for b in batches:
            b.answer(Unavailable(sent=sent))
        self._queue.refuse()

    async def _recover(self) -> bool:
        """Reconnect until Redis answers within the deadline. Late replies of the old connection are dropped with it."""
        await self._link.close()
        while not self._closing:
            deadlines = RowDeadlines(self)
            try:
                if await self._ping():
                    return True
            finally:
                deadlines.cancel()
            self._queue.refuse()
            await asyncio.sleep(self._settings.retry_ms / 1000)
        return False

    async def _ping(self) -> bool:
        """Connect if needed, and learn Redis time. Down unless the second of two answers came within the deadline."""
        try:
            # The first answer may include the time to connect.
            await self._link.send([("TIME",)])
            await self._link.receive(1)
            started = self.loop.time()
            await self._link.send([("TIME",)])
            (reply,) = await self._link.receive(1)
        except StoreError as fault:
            self._availability.set_down(str(fault))
            return False
        if isinstance(reply, ResponseError):
            self._availability.set_down(str(reply))
            return False
        took_ms = (self.loop.time() - started) * 1000
        self._clock.set(int(reply[0]), int(reply[1]), started)
        if took_ms > self._settings.deadline_ms:
            self._availability.set_down(f"a ping took {took_ms:.0f} ms")
            return False
        self._availability.answered_in_time()
        self._availability.set_up("answers again")
        return True

    async def retire(self) -> None:
        """Close the lane of a node that has no partition any more; it does not count as down."""
        await self.close()
        self._availability.retire()

    async def close(self) -> None:
        """Stop the lane; waiting rows are answered `Unavailable`."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._queue.refuse()
        await self._link.close()
