"""Whether a stream covers a subject: known for specified subjects, looked up for others and cached for 30 s."""

import asyncio
import logging
from collections.abc import Callable

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from router.bus.streams.registry import Streams
from router.errors import BusError
from router.telemetry.events import Event

log = logging.getLogger(__name__)

_CACHE_S = 30.0
_MAX_CACHED = 4096
_RETRY_S = 0.1
_INBOX = "_INBOX."


class Coverage:
    """The coverage of subjects: `known` answers at once, `ask` later. Callers of one subject share a lookup."""

    def __init__(self, streams: Streams, *, give_up_s: float) -> None:
        self._streams = streams
        self._give_up_s = give_up_s
        self._cache: dict[str, tuple[bool, float]] = {}
        self._callbacks: dict[str, list[Callable[[bool | None], None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def specified(self, subject: str) -> bool:
        """Whether a specified stream of the fleet covers the subject."""
        return self._streams.specified(subject)

    def known(self, subject: str) -> bool | None:
        """Return whether a stream covers the subject; None: unknown, call `ask`.

        No stream covers an inbox; a lookup for each of the many inboxes would be wasted.
        """
        if self._streams.specified(subject):
            return True
        if subject.startswith(_INBOX):
            return False
        covered, valid_until = self._cache.get(subject, (False, 0.0))
        return covered if asyncio.get_running_loop().time() < valid_until else None

    def ask(self, subject: str, then: Callable[[bool | None], None]) -> None:
        """Look up the subject and call `then` later; with None if JetStream does not answer within `give_up_s`."""
        callbacks = self._callbacks.setdefault(subject, [])
        callbacks.append(then)
        if len(callbacks) == 1:
            task = asyncio.get_running_loop().create_task(self._look_up(subject))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, subject: str) -> None:
        """Drop the cached result of a subject."""
        self._cache.pop(subject, None)

    def close(self) -> None:
        """Cancel all lookups; no callback runs."""
        for task in self._tasks:
            task.cancel()
        self._callbacks.clear()

    async def _look_up(self, subject: str) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(BusError),
            wait=wait_fixed(_RETRY_S),
            stop=stop_after_delay(self._give_up_s),
            reraise=True,
        )
        covered: bool | None = None
        try:
            covered = bool(await retrying(self._streams.covering, subject))
        except BusError as error:
            log.error("cannot look up the stream of %s: %s", subject, error, extra={"event": Event.BUS_ERROR})
        else:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[subject] = (covered, asyncio.get_running_loop().time() + _CACHE_S)
        for then in self._callbacks.pop(subject, []):
            then(covered)
