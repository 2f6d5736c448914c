"""Keeps the streams there, and looks for streams that must not be: at each connection, every 30 s, and when asked;
every 2 s while there is one, since the pod waits for its end.

A stream over a request/reply subject answers the caller before the router does: the pod is then not ready.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from router.bus.connection import Bus
from router.bus.fleet import REQUEST_SUBJECTS
from router.bus.stream_specs import Ensured
from router.bus.streams import Streams
from router.errors import BusError
from router.telemetry.events import Event

log = logging.getLogger(__name__)


class StreamKeeper:
    """`covered` maps request/reply subjects to streams over them: empty is good.

    `on_look(ensured, covered)` is told after each complete look; after one that failed the next is after `retry_s`.
    """

    def __init__(
        self,
        bus: Bus,
        streams: Streams,
        *,
        request_subjects: Sequence[str] = REQUEST_SUBJECTS,
        every_s: float = 30.0,
        retry_s: float = 1.0,
        covered_s: float = 2.0,
        on_look: Callable[[Ensured, dict[str, list[str]]], None] | None = None,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._subjects = tuple(request_subjects)
        self._every_s = every_s
        self._retry_s = retry_s
        self._covered_s = covered_s
        self._on_look = on_look
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.covered: dict[str, list[str]] = {}
        self.ensured = Ensured()

    async def start(self) -> None:
        """Look now and from then on."""
        if self._task is None:
            self._bus.on_connect.append(self.poll_soon)
            self._task = asyncio.create_task(self._run(), name="stream keeper")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._bus.on_connect.remove(self.poll_soon)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def poll_soon(self) -> None:
        """Something is missing, or may be: look now instead of in up to 30 s."""
        self._wake.set()

    async def poll(self) -> None:
        """One look.

        :raises BusError: JetStream cannot be reached.
        """
        ensured = await self._streams.ensure()
        covered = {}
        for subject in self._subjects:
            if names := await self._streams.covering(subject):
                covered[subject] = names
        if ensured.created:
            log.info("created in JetStream: %s", ", ".join(ensured.created), extra={"event": Event.STREAM_CREATED})
        if ensured.differences != self.ensured.differences:
            for difference in ensured.differences:
                log.warning("not as specified: %s", difference, extra={"event": Event.STREAM_DIFFERS})
        if covered != self.covered:
            for subject, names in covered.items():
                log.error(
                    "streams %s answer the requests on %s before the router does",
                    ", ".join(names),
                    subject,
                    extra={"event": Event.STREAM_COVERS_REQUESTS},
                )
        self.ensured, self.covered = ensured, covered
        if self._on_look is not None:
            self._on_look(ensured, covered)

    async def _run(self) -> None:
        while True:
            pause = self._every_s
            self._wake.clear()
            try:
                if self._bus.connected:
                    await self.poll()
                    pause = self._covered_s if self.covered else self._every_s
            except BusError as error:
                pause = self._retry_s
                log.warning("cannot look after the streams: %s", error, extra={"event": Event.BUS_ERROR})
            except Exception:  # a bug of ours or of a callback; somebody must go on looking
                log.exception("a look after the streams failed", extra={"event": Event.BUG})
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it loses a cancellation that comes with the wake-up; `stop` hung.
                async with asyncio.timeout(pause):
                    await self._wake.wait()
