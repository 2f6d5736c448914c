"""Does a stream hold this subject? Known for the specified ones, looked up for all others and kept 30 s."""

import asyncio
import logging
from collections.abc import Callable

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from router.bus.streams import Streams
from router.errors import BusError
from router.telemetry.events import Event

log = logging.getLogger(__name__)

_KEPT_S = 30.0
_KEPT_SUBJECTS = 4096
_RETRY_S = 0.1
_INBOX = "_INBOX."


class Coverage:
    """Answers at once when it knows (`known`), else later (`ask`); lookups of one subject are shared."""

    def __init__(self, streams: Streams, *, give_up_s: float) -> None:
        self._streams = streams
        self._give_up_s = give_up_s
        self._found: dict[str, tuple[bool, float]] = {}
        self._asking: dict[str, list[Callable[[bool | None], None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def specified(self, subject: str) -> bool:
        """Whether a stream of the fleet is meant to hold it."""
        return self._streams.specified(subject)

    def known(self, subject: str) -> bool | None:
        """True: a stream holds it; False: none does; None: ask. An inbox is somebody's own, and there are many."""
        if self._streams.specified(subject):
            return True
        if subject.startswith(_INBOX):
            return False
        covered, until = self._found.get(subject, (False, 0.0))
        return covered if asyncio.get_running_loop().time() < until else None

    def ask(self, subject: str, then: Callable[[bool | None], None]) -> None:
        """Look it up; `then` is called later, with None when JetStream did not say within `give_up_s`."""
        waiting = self._asking.setdefault(subject, [])
        waiting.append(then)
        if len(waiting) == 1:
            task = asyncio.get_running_loop().create_task(self._look_up(subject))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, subject: str) -> None:
        """What was found is no longer true."""
        self._found.pop(subject, None)

    def close(self) -> None:
        """Ask no more; nobody is called back."""
        for task in self._tasks:
            task.cancel()
        self._asking.clear()

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
            if len(self._found) >= _KEPT_SUBJECTS:
                self._found.clear()
            self._found[subject] = (covered, asyncio.get_running_loop().time() + _KEPT_S)
        for then in self._asking.pop(subject, []):
            then(covered)
