"""The road of decide rows to one Redis node: what waits in this tick goes together, one pipeline in flight.

Life of a row: packed into an open batch → sent → answered, or answered `Unavailable` at its deadline. Life of the lane:

    idle ──submit──▶ flying ──reply──▶ flying (what came meanwhile) or idle
                       │ some deadlines missed in a row, or connection lost
                       ▼
                     down: rows are refused at once ──PING answered in time──▶ idle

Slow is down, a hiccup is not: rows behind a late call are answered at their own deadlines, and the lane is down when
several deadlines were missed, by one call or by calls with none in time between them. A late call may still execute;
its rows carry `not_after` (Redis time), after which they write nothing, and a nonce that is checked.
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
# What a server calls the code in the message of an error that it raised.
_SOURCES = ("user_function:", "user_script:")


def _nothing() -> None:
    """For whoever does not want to know."""


def _unheard(_lane: object, _why: str | None) -> None:
    """Likewise."""


class LaneHooks(Struct):
    """What a lane reports: a call (script, seconds, rows), a missed deadline, down or up and why, a late row.

    `on_refused`: the node of this lane answers, and refuses calls as a whole (why), or no more (None).
    """

    on_call: Callable[[str, float, int], None]
    on_timeout: Callable[[], None]
    on_down: Callable[[bool, str], None]
    on_late: Callable[[], None] = _nothing
    on_refused: Callable[[object, str | None], None] = _unheard


class Lane:
    """Rows of one node. `submit` may be called from the event loop only; it never waits and never raises."""

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
        # Work items of rows that were refused or replayed: they go with the next pipeline, not when they expire.
        self._unwanted: list[bytes] = []
        # Sent, or answered and not yet handed out: they get an answer also when the lane breaks or closes.
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
        """Redis time in ms: the last reply's, and what has passed since. The pod's own clock before the first one."""
        offset = self._clock_offset
        return time.time() * 1000 if offset is None else self.loop.time() * 1000 + offset

    def submit(self, w: Waiting) -> None:
        """Queue a row; rows of one group go in one call (a Cluster's call has one slot)."""
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
        """Queue a batch that another node refused without executing it; rows past their deadline are answered."""
        now = self.loop.time() * 1000
        if self._down or self._closing or all(w.expires <= now for w in batch.waiting):
            batch.answer(Unavailable(sent=False))
            return
        self._full.append(batch)
        self._start()

    async def open(self) -> None:
        """Connect; returns after the first try, whatever it came to."""
        if self._clock_offset is None and self._task is None:
            # The link has one user at a time: nobody else begins meanwhile.
            self._opening = True
            try:
                await self._ping()
            finally:
                self._opening = False
        if self._down or self._full or self._open:
            self._start()

    def tick(self) -> None:
        """Ask for the time if nothing else is under way: a lane that nobody uses has to know, too, when Redis is away.

        Rows that come meanwhile wait as for a call in flight.
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
            log.error("the lane broke and starts anew", exc_info=bug)
            self._refuse_waiting()
            self._clock_offset = None
        if bug is not None or task.cancelled():
            for batch in self._flying:
                batch.answer(Unavailable(sent=True))
        self._flying = []
        if self._full or self._open:
            self._start()

    async def _run(self) -> None:
        """Pump batches until there are none. Replies are handed out while Redis works on the next batch."""
        if (self._down or self._clock_offset is None) and not await self._recover():
            return
        # Let everything of this tick join the first batch.
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
                    # The server was demoted and kept our connection: the address may lead to its successor by now.
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
                # Answered, but after several deadlines: slow is down until a ping is quick again.
                self._hand_out(done)
                await self._recover()
                return

    def _take(self) -> list[Batch]:
        """What goes next: one call a group, so that no partition has two calls in flight."""
        if len(self._open) + len(self._full) == 1:
            batches = self._full or list(self._open.values())
            self._full, self._open = [], {}
            return batches
        if self._full:
            # A full batch may have a successor of its own group; one is enough for now.
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
                # Refused as a whole (out of memory, loading, a replica): nothing was executed. Unless the script itself
                # broke: its message names a line, and rows before that may stand.
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
                    raise OutcomeUnknown("a reply was for another request; the connection is not to be trusted")
                if code == LATE:
                    self._late(w)
                    continue
                if w.job is not None and code != ADMITTED and w.attempt == 1:
                    self._unwanted.append(w.keys.job(task_id(w.decision)))
                w.tell(outcome(row, code, w.decision), stamp)

    def _late(self, w: Waiting) -> None:
        """The row came after its `not_after`. If its caller still waits, our idea of Redis time was old: once more."""
        self._hooks.on_late()
        if w.answered:
            return
        if not w.again and self.loop.time() * 1000 < w.expires:
            w.again = True
            self.submit(w)
        else:
            w.tell(Unavailable(sent=False))

    def _came_back(self, started: float) -> float:
        """How long a call took, in seconds; in time, it ends the row of missed deadlines."""
        elapsed = self.loop.time() - started
        if elapsed <= self.deadline_s:
            self._missed = 0
        return elapsed

    def missed(self, batches: list[Batch]) -> None:
        """A call's deadline has passed, once more: its rows are answered, and the lane is down after some in a row."""
        self._hooks.on_timeout()
        for b in batches:
            b.answer(Unavailable(sent=True))
        self._missed += 1
        if self._missed >= self._settings.missed_until_down:
            self._set_down(True, f"{self._missed} deadlines of {self._settings.deadline_ms:g} ms were missed in a row")
            self._refuse_waiting()

    def expire(self, flying: list[Batch]) -> None:
        """Answer the rows whose own deadline has passed: those in flight, and those that wait behind a late call.

        The latter stay in their batch: when it is sent, the script refuses them as late.
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
        """Reconnect until Redis answers within the deadline. What the old connection may bring has nowhere to go."""
        await self._link.close()
        while not self._closing:
            if await self._ping():
                return True
            self._refuse_waiting()
            await asyncio.sleep(self._settings.retry_ms / 1000)
        return False

    async def _ping(self) -> bool:
        """Connect if need be, and learn Redis time. Down unless the second of two answers came within the deadline."""
        try:
            # The first one may pay for the connection.
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
        """Cap a call by time: what a row cost lately says how many fit the budget."""
        if rows >= _MIN_ROWS // 2:
            # The quickest of late: a pause of the machine says nothing about what a row costs Redis.
            self._row_ms = min(self._row_ms * 1.02, call_ms / rows) if self._row_ms else call_ms / rows
            fit = int(self._settings.call_budget_ms / self._row_ms)
            self._rows_cap = max(_MIN_ROWS, min(self._settings.max_rows, fit))

    def _takes_calls(self) -> None:
        self._refused = False
        self._hooks.on_refused(self, None)

    async def retire(self) -> None:
        """Its node owns nothing any more: close, and be away no longer."""
        await self.close()
        self._set_down(False, "its node has left")
        if self._refused:
            self._takes_calls()

    async def close(self) -> None:
        """Stop; whoever still waits is answered `Unavailable`."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._refuse_waiting()
        await self._link.close()
