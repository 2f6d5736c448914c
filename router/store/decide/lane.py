"""A lane carries decide rows to one Redis node: rows of one tick travel together, with one pipeline in flight.

A row is packed into an open batch (`RowQueue`), then sent (`Calls`), then answered by its reply (`Delivery`), or as
`Unavailable` at its deadline (`CallDeadlines`). Calls are sent and answered in callbacks of the event loop. Only what
waits for Redis otherwise is a task: to connect, and to ask for the time. The states of a lane:

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
from redis.exceptions import ResponseError

from router.domain.decide.outcome import RowFault, Unavailable
from router.errors import OutcomeUnknown, StoreError
from router.store.decide.availability import Availability, LaneHooks
from router.store.decide.batch import Batch, WaitingRow
from router.store.decide.call_deadline import CallDeadlines
from router.store.decide.calls import Calls, LaneSettings
from router.store.decide.clock import RedisClock
from router.store.decide.connecting import Connecting
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
        self._loop = asyncio.get_running_loop()
        self._clock = RedisClock(self._loop, hooks.on_clock_step)
        self.now_ms = self._clock.now_ms
        self._calls = Calls(link, script, settings, self.now_ms)
        self._queue = RowQueue(packer, settings)
        self._availability = Availability(settings, hooks)
        self._delivery = Delivery(
            settings, hooks, self._availability, self._clock, redirect=redirect, resubmit=self.submit
        )
        self._deadlines = CallDeadlines(self._loop, settings.deadline_ms / 1000, self._availability, self._queue)
        self._connecting = Connecting(
            link, settings, self._availability, self._clock, self._deadlines, refuse=self._queue.refuse
        )
        # Whether the queue will be looked at: after a call in flight or a task, or in the next turn of the loop.
        self._busy = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        # The batches of the call in flight, and when it was sent; None: no call is in flight.
        self._flying: list[Batch] | None = None
        self._sent_s = 0.0

    @property
    def down(self) -> bool:
        """Whether rows are refused at once."""
        return self._availability.down

    def submit(self, w: WaitingRow) -> None:
        """Queue a row. Rows of one group travel in one call (a Cluster's call has one slot)."""
        if self._availability.down or self._clock.offset_ms is None:
            self._start()
            if self._availability.down or self._loop.time() * 1000 >= w.expires:
                self._loop.call_soon(w.tell, Unavailable(sent=False), NO_STAMP)
                return
        try:
            self._queue.add(w, w.expires + (self._clock.offset_ms or 0.0))
        except Exception as bug:  # one request's bug must not cost the others their answers; it is logged whole
            log.exception("a row could not be packed")
            self._loop.call_soon(w.tell, RowFault(f"cannot be packed: {bug}"), NO_STAMP)
            return
        if not self._busy:
            self._start()

    def bound(self, w: WaitingRow) -> None:
        """Answer this row at its own deadline, which may end before those of rows that were submitted earlier."""
        self._loop.call_at(w.expires / 1000, self._overdue, w)

    def _overdue(self, w: WaitingRow) -> None:
        if not w.answered:
            w.tell(Unavailable(sent=any(w is row for batch in self._flying or () for row in batch.waiting)))

    def resend(self, batch: Batch) -> None:
        """Queue a batch that another node refused without executing it. Rows past their deadline are answered."""
        now = self._loop.time() * 1000
        if self._availability.down or self._closing or all(w.expires <= now for w in batch.waiting):
            batch.answer(Unavailable(sent=False))
            return
        self._queue.put(batch)
        self._start()

    async def open(self) -> None:
        """Connect; returns after the first try, successful or not."""
        if self._clock.offset_ms is None and not self._busy:
            self._busy = True
            try:
                await self._connecting.ping()
            finally:
                self._busy = False
        if self._availability.down or not self._queue.empty:
            self._start()

    async def renew(self, make: Callable[[], AbstractConnection]) -> None:
        """Use connections that are made like this; see `Link.renew`."""
        await self._link.renew(make)

    def tick(self) -> None:
        """Ask for the time if nothing else is under way, so that an unused lane notices an outage, too.

        Rows that arrive meanwhile wait as for a call in flight.
        """
        if not self._availability.down and not self._busy:
            self._run(self._look)

    async def _look(self) -> None:
        if (fault := await self._connecting.look()) is not None:
            self._lost(fault)
        if self._availability.down:
            await self._connecting.reconnect()

    def _start(self) -> None:
        """Have the queue sent, unless that happens anyway. All rows of this turn of the loop join the first batch."""
        if self._busy or self._closing:
            return
        if self._availability.down or self._clock.offset_ms is None:
            self._run(self._connecting.reconnect)
        else:
            self._busy = True
            self._loop.call_soon(self._flush)

    def _run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Let a task have the connection. Afterwards the queue is sent."""
        if self._task is None and not self._closing:
            self._busy = True
            self._task = self._loop.create_task(work())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._busy = False
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._broke([], bug)
        if not self._queue.empty:
            self._start()

    def _flush(self) -> None:
        """Send what waits as the next call. Without anything to send the lane is idle."""
        pipeline = self._link.pipeline()
        if pipeline is None:
            self._run(self._connecting.reconnect)
            return
        batches = self._queue.take()
        unlinks = self._delivery.take_unused_jobs()
        if not batches and not unlinks and not self._calls.has_removals:
            self._busy = False
            return
        self._busy = True
        self._flying = batches
        try:
            self._sent_s = now = self._loop.time()
            self._deadlines.start(batches, now)
            data, replies = self._calls.write(batches, unlinks)
            pipeline.send(data, replies, self)
        except Exception as bug:  # the lane must not stop with it; it is logged whole
            self._broke([], bug)

    def received(self, replies: list[Any]) -> None:
        """Handle the replies of the call in flight; see `Receiver`."""
        batches: list[Batch] = self._flying or []
        self._flying = None
        try:
            self._executed(batches, replies)
        except Exception as bug:  # as in `_flush`
            self._broke(batches, bug)

    def _executed(self, batches: list[Batch], replies: list[Any]) -> None:
        """Send the next call, and deliver the replies of this one while Redis works on that."""
        self._deadlines.stop()
        sent_s = self._sent_s
        elapsed_s = self._loop.time() - sent_s
        self._availability.answered(elapsed_s)
        executed, unloaded = self._calls.read(batches, replies)
        for b in unloaded:
            self._queue.put(b)
        if executed or not batches:
            rows = sum([len(b.rows) for b, _ in executed])
            self._queue.learn(elapsed_s * 1000, rows)
            self._hooks.on_call(self._script.name, elapsed_s, rows)
        if self._availability.down:
            # Answered, but only after several deadlines: the lane stays down until a ping is quick again.
            self._run(self._connecting.reconnect)
        else:
            self._flush()
        self._delivery.deliver(executed, sent_s)
        if self._delivery.has_unused_jobs and not self._busy:
            self._flush()

    def lost(self, fault: OutcomeUnknown) -> None:
        """Handle the loss of the call in flight; see `Receiver`."""
        if self._flying is not None:
            self._lost(fault)

    def _lost(self, fault: StoreError) -> None:
        self._availability.set_down(str(fault))
        self._drop([])
        self._run(self._connecting.reconnect)

    def _broke(self, batches: list[Batch], bug: BaseException) -> None:
        """Start again after a bug, or a reply to another row, with a new connection."""
        log.error("the lane broke and starts again", exc_info=bug)
        self._drop(batches)
        self._clock.forget()
        if self._task is None:
            self._busy = False

    def _drop(self, batches: list[Batch]) -> None:
        """Drop the connection. Answer the rows of these batches, those in flight, and those that wait."""
        flying, self._flying = self._flying or [], None
        self._deadlines.stop()
        self._link.close()
        for b in (*batches, *flying):
            b.answer(Unavailable(sent=True))
        self._queue.refuse()

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
        self._drop([])
        self._deadlines.close()
