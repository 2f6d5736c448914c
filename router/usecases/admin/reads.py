"""Bounds administrative reads, so that many pollers do not slow decisions.

- **Rate.** A read above the rate waits for its turn, at most `MAX_WAIT_S`; beyond that it is refused. So a client that
  polls in a loop is slowed down, and one that polls now and then never waits.
- **Concurrency.** A few reads run at a time. A bounded number of further ones wait, in order.
- **Sharing.** Equal reads over all tenants share one answer, for `SHARED_S` from its start or as long as it is being
  read, within one role. A read of one tenant is never shared, so it shows a lever at once.

Changes are not bounded here: a lever must work while clients poll.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from msgspec import Struct

MAX_WAIT_S: Final = 2.0
SHARED_S: Final = 1.0
MAX_QUEUED: Final = 32
MAX_SHARED: Final = 64
BURST_S: Final = 0.25
"""The burst: reads of so many seconds of the rate may come at once."""

T = TypeVar("T")


class ReadBounds(Struct, frozen=True):
    """`per_s` reads a second, `at_once` of them at a time, in each pod."""

    per_s: float = 25.0
    at_once: int = 4


class TooManyReads(Exception):
    """Refused; `retry_after_ms`: when to try again."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(f"too many administrative reads: repeat after {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class Reads(Generic[T]):
    """The reads of one pod. `clock`: loop time, in s; `on_shared` is called for each read that shares an answer."""

    def __init__(
        self, bounds: ReadBounds, clock: Callable[[], float], on_shared: Callable[[], None] = lambda: None
    ) -> None:
        self._every_s = 1.0 / bounds.per_s
        self._burst_s = max(BURST_S, self._every_s)
        self._clock = clock
        self._on_shared = on_shared
        # The moment at which the reads so far have used up the rate.
        self._used_until = 0.0
        self._free = asyncio.Semaphore(bounds.at_once)
        self._queued = 0
        self._shared: OrderedDict[object, tuple[float, asyncio.Future[T]]] = OrderedDict()

    async def run(self, read: Callable[[], Awaitable[T]], *, shared_as: object = None) -> T:
        """Return what `read` returns. `shared_as`: equal reads of equal keys share it; None: never.

        :raises TooManyReads: the bounds are reached.
        """
        await self._turn()
        if shared_as is None:
            return await self._one(read)
        now = self._clock()
        begun_at, answer = self._shared.get(shared_as, (0.0, None))
        if answer is not None and (not answer.done() or now - begun_at < SHARED_S):
            self._on_shared()
            return await asyncio.shield(answer)
        answer = asyncio.ensure_future(self._one(read))
        self._shared[shared_as] = now, answer
        self._shared.move_to_end(shared_as)
        if len(self._shared) > MAX_SHARED:
            self._shared.popitem(last=False)
        try:
            return await asyncio.shield(answer)
        finally:
            # A failure is not shared with later reads.
            if answer.done() and (answer.cancelled() or answer.exception() is not None):
                self._shared.pop(shared_as, None)

    async def _turn(self) -> None:
        """Wait until the rate admits one more read."""
        now = self._clock()
        used_until = max(self._used_until, now - self._burst_s) + self._every_s
        wait_s = used_until - now
        if wait_s > MAX_WAIT_S:
            raise TooManyReads(int(wait_s * 1000) + 1)
        self._used_until = used_until
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _one(self, read: Callable[[], Awaitable[T]]) -> T:
        if self._queued >= MAX_QUEUED:
            raise TooManyReads(int(MAX_WAIT_S * 1000))
        self._queued += 1
        try:
            await self._free.acquire()
        finally:
            self._queued -= 1
        try:
            return await read()
        finally:
            self._free.release()
