"""Creates missing streams, and finds streams that cover request subjects.

It also reads the list of all streams, for `bus.streams.reply_subjects`. Users of version 0.1.0 lack the right to do
so: a pod without it keeps running, and reports that.

It checks at each connection, every 30 s, and at `poll_soon`. A stream over a request/reply subject acknowledges the
request to the caller before the router replies. So the pod is not ready while there is such a stream, and the keeper
checks every 2 s. While a needed stream is missing, or a check fails, it checks after 1 s, 2 s, 4 s and so on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from router.bus.client.connection import Bus
from router.bus.streams import api
from router.bus.streams.consumers import REQUEST_SUBJECTS
from router.bus.streams.registry import Streams
from router.bus.streams.reply_subjects import ReplySubjects
from router.bus.streams.specs import Ensured
from router.errors import BusError
from router.log_throttle import LogThrottle
from router.telemetry.events import Event

log = logging.getLogger(__name__)

_MAX_RETRY_S = 10.0

_LIST_S = 1.0


class StreamKeeper:
    """The periodic check. `covered` maps request/reply subjects to the streams that cover them; it should be empty.

    `on_poll(ensured, covered)` is called after each complete check, `on_fault(reason, off)` after one that failed;
    `off`: there is no JetStream. Checks that fail or find a needed stream missing are repeated after `retry_s`, then
    twice that, up to 10 s. `on_listed(why)` is called after each reading of the list for `replies`; `why` is the reason
    of a failure, else None.
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
        on_poll: Callable[[Ensured, dict[str, list[str]]], None] | None = None,
        replies: ReplySubjects | None = None,
        on_listed: Callable[[str | None], None] = lambda _why: None,
        on_fault: Callable[[str, bool], None] = lambda _reason, _off: None,
    ) -> None:
        self._bus = bus
        self._streams = streams
        self._subjects = tuple(request_subjects)
        self._every_s = every_s
        self._retry_s = retry_s
        self._covered_s = covered_s
        self._replies = replies
        self._listing: asyncio.Task[None] | None = None
        self._on_listed = on_listed
        self._on_poll = on_poll
        self._on_fault = on_fault
        self._throttle = LogThrottle(time.monotonic)
        self._backoff_s = retry_s
        self._waiting_for_retry = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.covered: dict[str, list[str]] = {}
        self.ensured = Ensured()

    async def start(self) -> None:
        """Check now, then periodically."""
        if self._task is None:
            self._bus.on_connect.append(self._connected)
            self._task = asyncio.create_task(self._run(), name="stream keeper")

    async def stop(self) -> None:
        """End the checks."""
        if self._task is not None:
            self._bus.on_connect.remove(self._connected)
            tasks = [task for task in (self._task, self._listing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._task = self._listing = None

    def poll_soon(self) -> None:
        """Check at once: a stream may be missing. No effect while a repeated check is scheduled."""
        if not self._waiting_for_retry:
            self._wake.set()

    def _connected(self) -> None:
        self._backoff_s = self._retry_s
        self._wake.set()

    async def poll(self) -> None:
        """Check once.

        :raises BusError: JetStream is unavailable.
        """
        if self._replies is not None and (self._listing is None or self._listing.done()):
            self._listing = asyncio.create_task(self._list(self._replies), name="list of streams")
        try:
            await self._check()
        finally:
            if (
                self._listing is not None
            ):  # without the right to read the list there is no answer: readiness must not wait
                await asyncio.wait([self._listing], timeout=_LIST_S)
        if self._on_poll is not None:
            self._on_poll(self.ensured, self.covered)

    async def _check(self) -> None:
        ensured = await self._streams.ensure()
        covered = {}
        for subject in self._subjects:
            if names := await self._streams.covering(subject):
                covered[subject] = names
        if ensured.created:
            log.info("created in JetStream: %s", ", ".join(ensured.created), extra={"event": Event.STREAM_CREATED})
        for difference in ensured.differences:
            if difference not in self.ensured.differences:
                log.warning(
                    "stream or consumer not as specified: %s", difference, extra={"event": Event.STREAM_DIFFERS}
                )
        if covered != self.covered:
            for subject, names in covered.items():
                log.error(
                    "streams %s cover the request subject %s and answer its callers; remove the subject from them",
                    ", ".join(names),
                    subject,
                    extra={"event": Event.STREAM_COVERS_REQUESTS},
                )
        self.ensured, self.covered = ensured, covered

    async def _list(self, replies: ReplySubjects) -> None:
        try:
            listed = await self._streams.listed()
        except BusError as error:
            replies.streams_unknown()
            self._on_listed(str(error))
            return
        replies.set_streams(listed.subjects, listed.missing)
        self._on_listed(None)

    async def _run(self) -> None:
        while True:
            pause_s = self._every_s
            self._wake.clear()
            try:
                if self._bus.connected:
                    pause_s = await self._poll_or_report()
            except Exception:  # after a bug, also in a callback, the checks must continue
                log.exception("check of the streams failed", extra={"event": Event.BUG})
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it loses a cancellation that comes with the wake-up, and `stop`
                # would hang.
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _poll_or_report(self) -> float:
        """Check once and return the seconds until the next check."""
        try:
            await self.poll()
        except BusError as error:
            reason = f"cannot check the streams: {error}"
            if (suppressed := self._throttle.due(reason)) is not None:
                log.warning(reason, extra={"event": Event.BUS_ERROR, "unsaid": suppressed})
            self._on_fault(reason, api.jetstream_is_off(error))
        else:
            if not self.ensured.missing:
                self._backoff_s, self._waiting_for_retry = self._retry_s, False
                self._throttle.over()
                return self._covered_s if self.covered else self._every_s
        pause_s, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, self._every_s, _MAX_RETRY_S)
        self._waiting_for_retry = True
        return pause_s
