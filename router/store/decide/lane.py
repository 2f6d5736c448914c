"""A lane carries decide rows to one Redis node: rows of one tick travel together, with one pipeline in flight.

A row is packed into an open batch, then sent, then answered by its reply, or as `Unavailable` at its deadline. The
states of a lane:

    idle ──submit──▶ flying ──reply──▶ flying (with the rows that arrived meanwhile) or idle
                       │ several deadlines missed in a row, or connection lost
                       ▼
                     down: rows are refused at once ──PING answered in time──▶ idle

Why: a request never owns the connection, and no command is cancelled on the wire, because a late reply would then reach
the next caller, who may belong to another tenant. So a timeout answers the caller and leaves the call in flight. Such a
call may still execute. Its rows carry `not_after` (Redis time), after which they write nothing, and a nonce that is
checked.

A slow Redis makes the lane down, a short pause does not. Rows behind a late call are answered at their own deadlines.
The lane is down after several missed deadlines, of one call or of consecutive calls.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct
from redis.exceptions import ReadOnlyError, ResponseError

from router.domain.ids import task_id
from router.domain.outcome import RowFault, Unavailable
from router.errors import OutcomeUnknown, StoreError
from router.store.decide.batch import Batch, Waiting
from router.store.decide.call_deadline import CallDeadlines
from router.store.decide.calls import NOT_REPLICATED, Calls, LaneSettings
from router.store.decide.link import Link
from router.store.decide.replies import ADMITTED, HEAD, LATE, outcome
from router.store.decide.rows import RowPacker
from router.store.packing import NO_STAMP
from router.store.scripts import Script

log = logging.getLogger(__name__)

_MIN_ROWS = 32
# The code of an error that a script raised, in the server's message.
_SOURCES = ("user_function:", "user_script:")


def _nothing() -> None:
    """Ignore a report."""


def _unheard(_lane: object, _why: str | None) -> None:
    """Likewise."""


class LaneHooks(Struct):
    """Reports of a lane: a call (script, seconds, rows), a missed deadline, down or up and why, a late row.

    `on_refused`: the node answers, but refuses whole calls (why), or accepts them again (None).
    """

    on_call: Callable[[str, float, int], None]
    on_timeout: Callable[[], None]
    on_down: Callable[[bool, str], None]
    on_late: Callable[[], None] = _nothing
    on_refused: Callable[[object, str | None], None] = _unheard


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
        self._packer = packer
        self._script = script
        self._settings = settings
        self._hooks = hooks
        self._redirect = redirect
        self._calls = Calls(link, script, settings, self.now_ms)
        self.loop = asyncio.get_running_loop()
        self.deadline_s = settings.deadline_ms / 1000
        self._open: dict[int, Batch] = {}
        self._full: list[Batch] = []
        self._task: asyncio.Task[None] | None = None
        self._nonce = 0
        self._clock_offset: float | None = None
        self._rows_cap = settings.max_rows
        self._row_ms = 0.0
        # Work items of rows that were refused or replayed. The next pipeline removes them, before they would expire.
        self._unwanted: list[bytes] = []
        # Rows that are sent, or answered and not yet delivered: they get an answer also when the lane breaks or closes.
        self._flying: list[Batch] = []
        self._down = False
        self._missed = 0
        self._refused = False
        self._closing = False
        self._opening = False

    @property
    def down(self) -> bool:
        """Whether rows are refused at once."""
        return self._down

    def now_ms(self) -> float:
        """Redis time in ms: that of the last reply plus the time since; the pod's own clock before the first reply."""
        offset = self._clock_offset
        return time.time() * 1000 if offset is None else self.loop.time() * 1000 + offset

    def submit(self, w: Waiting) -> None:
        """Queue a row. Rows of one group travel in one call (a Cluster's call has one slot)."""
        if self._down or self._clock_offset is None:
            self._start()
            if self._down or self.loop.time() * 1000 >= w.expires:
                self.loop.call_soon(w.done, Unavailable(sent=False), NO_STAMP)
                return
        batch = self._open.get(w.group)
        if batch is None:
            batch = self._open[w.group] = Batch()
        self._nonce = nonce = (self._nonce + 1) & 0xFFFFFFFF
        try:
            self._packer.add(batch, w, nonce, w.expires + (self._clock_offset or 0.0))
        except Exception as bug:  # one request's bug must not cost the others their answers; it is logged whole
            log.exception("a row could not be packed")
            self.loop.call_soon(w.done, RowFault(f"cannot be packed: {bug}"), NO_STAMP)
            return
        if len(batch.rows) >= self._rows_cap or batch.size >= self._settings.max_bytes:
            self._full.append(self._open.pop(w.group))
        self._start()

    def resend(self, batch: Batch) -> None:
        """Queue a batch that another node refused without executing it. Rows past their deadline are answered."""
        now = self.loop.time() * 1000
        if self._down or self._closing or all(w.expires <= now for w in batch.waiting):
            batch.answer(Unavailable(sent=False))
            return
        self._full.append(batch)
        self._start()

    async def open(self) -> None:
        """Connect; returns after the first try, successful or not."""
        if self._clock_offset is None and self._task is None:
            # The link has one user at a time: no other task starts meanwhile.
            self._opening = True
            try:
                await self._ping()
            finally:
                self._opening = False
        if self._down or self._full or self._open:
            self._start()

    def tick(self) -> None:
        """Ask for the time if nothing else is under way, so that an unused lane notices an outage, too.

        Rows that arrive meanwhile wait as for a call in flight.
        """
        if not self._down:
            self._start(self._tick)

    async def _tick(self) -> None:
        started = self.loop.time()
        watch = CallDeadlines(self, [])
        try:
            await self._link.send([("TIME",)])
            await self._link.receive(1)
        except StoreError as fault:
            self._lost([], fault)
        else:
            self._came_back(started)
        finally:
            watch.cancel()
        if self._down:
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
            self._refuse_waiting()
            self._clock_offset = None
        if bug is not None or task.cancelled():
            for batch in self._flying:
                batch.answer(Unavailable(sent=True))
        self._flying = []
        if self._full or self._open:
            self._start()

    async def _run(self) -> None:
        """Send batches until there are none. Replies are delivered while Redis works on the next batch."""
        if (self._down or self._clock_offset is None) and not await self._recover():
            return
        # Let all rows of this tick join the first batch.
        await asyncio.sleep(0)
        done: list[tuple[Batch, Any]] = []
        while True:
            batches = self._take()
            if not batches:
                self._hand_out(done)
                done = []
                if self._full or self._open:
                    continue
                if not self._unwanted:
                    return
            started = self.loop.time()
            watch = CallDeadlines(self, batches)
            unlinks, self._unwanted = self._unwanted, []
            self._flying = [*batches, *(b for b, _ in done)]
            try:
                await self._calls.send(batches, unlinks)
                previous, done = done, []
                self._hand_out(previous)
                replies = await self._calls.receive(batches, len(unlinks))
                if any(isinstance(reply, ReadOnlyError) for reply in replies):
                    # The server was demoted and kept our connection: its address may lead to its successor now.
                    await self._link.close()
            except StoreError as fault:
                await self._link.close()
                self._lost([*batches, *(b for b, _ in done)], fault)
                await self._recover()
                return
            finally:
                watch.cancel()
            elapsed = self._came_back(started)
            rows = sum(len(b.rows) for b in batches)
            self._learn(elapsed * 1000, rows)
            self._hooks.on_call(self._script.name, elapsed, rows)
            done = list(zip(batches, replies, strict=True))
            if self._down:
                # Answered, but only after several deadlines: the lane stays down until a ping is quick again.
                self._hand_out(done)
                await self._recover()
                return

    def _take(self) -> list[Batch]:
        """The next pipeline: one call per group, so that no partition has two calls in flight."""
        if len(self._open) + len(self._full) == 1:
            batches = self._full or list(self._open.values())
            self._full, self._open = [], {}
            return batches
        if self._full:
            # A full batch may be followed by another of its group; one per pipeline is enough.
            return [self._full.pop(0)]
        batches = list(self._open.values())
        self._open = {}
        return batches

    def _hand_out(self, done: list[tuple[Batch, Any]]) -> None:
        for batch, reply in done:
            if reply is NOT_REPLICATED:
                log.error("a call was not replicated to %d replicas in time", self._settings.wait_replicas)
                batch.answer(Unavailable(sent=True))
                continue
            if isinstance(reply, ResponseError):
                if self._redirect(batch, reply):
                    continue
                # The call was refused as a whole (out of memory, loading, a replica): nothing was executed. The
                # exception is a bug in the script: its message names a line, and rows before it may have been executed.
                self._refused = True
                self._hooks.on_refused(self, str(reply))
                batch.answer(Unavailable(sent=any(source in str(reply) for source in _SOURCES)))
                continue
            if self._refused:
                self._takes_calls()
            self._clock_offset = reply[1] * 1000 + reply[2] / 1000 - self.loop.time() * 1000
            for w, row in zip(batch.waiting, reply[3:], strict=True):
                nonce, code, stamp = HEAD.unpack_from(row)
                if nonce != w.nonce:
                    for b, _ in done:
                        b.answer(Unavailable(sent=True))
                    raise OutcomeUnknown("a reply belongs to another request; the connection is dropped")
                if code == LATE:
                    self._late(w)
                    continue
                if w.job is not None and code != ADMITTED and w.attempt == 1:
                    self._unwanted.append(w.keys.job(task_id(w.decision)))
                w.tell(outcome(row, code, w.decision), stamp)

    def _late(self, w: Waiting) -> None:
        """The row arrived after its `not_after`. If its caller still waits, our estimate of Redis time was old: send it
        again.
        """
        self._hooks.on_late()
        if w.answered:
            return
        if not w.again and self.loop.time() * 1000 < w.expires:
            w.again = True
            self.submit(w)
        else:
            w.tell(Unavailable(sent=False))

    def _came_back(self, started: float) -> float:
        """Report how long a call took, in seconds. A call in time resets the count of missed deadlines."""
        elapsed = self.loop.time() - started
        if elapsed <= self.deadline_s:
            self._missed = 0
        return elapsed

    def missed(self, batches: list[Batch]) -> None:
        """A further deadline of a call has passed: answer its rows. After several in a row, the lane is down."""
        self._hooks.on_timeout()
        for b in batches:
            b.answer(Unavailable(sent=True))
        self._missed += 1
        if self._missed >= self._settings.missed_until_down:
            self._set_down(True, f"{self._missed} deadlines of {self._settings.deadline_ms:g} ms were missed in a row")
            self._refuse_waiting()

    def expire(self, flying: list[Batch]) -> None:
        """Answer the rows whose own deadline has passed: those in flight, and those that wait behind a late call.

        Waiting rows stay in their batch; the script refuses them as late when it is sent.
        """
        now = self.loop.time() * 1000
        for sent, batches in ((True, flying), (False, [*self._full, *self._open.values()])):
            for w in (w for batch in batches for w in batch.waiting if w.expires <= now):
                w.tell(Unavailable(sent=sent))

    def _lost(self, batches: list[Batch], fault: StoreError) -> None:
        self._set_down(True, str(fault))
        sent = isinstance(fault, OutcomeUnknown)
        for b in batches:
            b.answer(Unavailable(sent=sent))
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        waiting = [*self._full, *self._open.values()]
        self._full, self._open = [], {}
        for b in waiting:
            b.answer(Unavailable(sent=False))

    def _set_down(self, down: bool, why: str) -> None:
        if down != self._down:
            self._down = down
            self._hooks.on_down(down, why)

    async def _recover(self) -> bool:
        """Reconnect until Redis answers within the deadline. Late replies of the old connection are dropped with it."""
        await self._link.close()
        while not self._closing:
            if await self._ping():
                return True
            self._refuse_waiting()
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
            self._set_down(True, str(fault))
            return False
        now = self.loop.time()
        if isinstance(reply, ResponseError):
            self._set_down(True, str(reply))
            return False
        self._clock_offset = int(reply[0]) * 1000 + int(reply[1]) / 1000 - now * 1000
        took_ms = (now - started) * 1000
        if took_ms > self._settings.deadline_ms:
            self._set_down(True, f"a ping took {took_ms:.0f} ms")
            return False
        self._missed = 0
        self._set_down(False, "answers again")
        return True

    def _learn(self, call_ms: float, rows: int) -> None:
        """Limit a call by time: the recent cost of a row gives the number of rows that fit the budget."""
        if rows >= _MIN_ROWS // 2:
            # The quickest of the last calls: a pause of the machine says nothing about the cost of a row.
            self._row_ms = min(self._row_ms * 1.02, call_ms / rows) if self._row_ms else call_ms / rows
            fit = int(self._settings.call_budget_ms / self._row_ms)
            self._rows_cap = max(_MIN_ROWS, min(self._settings.max_rows, fit))

    def _takes_calls(self) -> None:
        self._refused = False
        self._hooks.on_refused(self, None)

    async def retire(self) -> None:
        """The node has no partition any more: close the lane, and do not count it as down."""
        await self.close()
        self._set_down(False, "its node has left")
        if self._refused:
            self._takes_calls()

    async def close(self) -> None:
        """Stop the lane; waiting rows are answered `Unavailable`."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._refuse_waiting()
        await self._link.close()
