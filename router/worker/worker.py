"""A worker's life: connect, fetch what there is room for, beat, drain.

A drain stops fetching, finishes what runs, and gives back what is not done in time.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import nats
import nats.errors
from nats.js.errors import APIError

from router.log_throttle import LogThrottle
from router.wire import subjects
from router.worker import messages
from router.worker.assignments import RETRY_S, Assignments
from router.worker.job import Handler, Handlers

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger(__name__)

FETCH_S = 1.0
HEARTBEAT_S = 5.0
FLUSH_S = 2

H = TypeVar("H", bound=Handler)


class Worker:
    """One worker process; see the package for how to write one.

    `connect` has further keywords of nats-py's connect (credentials, TLS). `drain_s`: after a stop, how long what runs
    may take to finish; the rest is given back.
    """

    def __init__(
        self,
        nats_urls: str | Sequence[str],
        *,
        name: str,
        concurrency: int = 32,
        drain_s: float = 20.0,
        connect: Mapping[str, object] | None = None,
    ) -> None:
        """:raises ValueError: `concurrency` is below 1."""
        if concurrency < 1:
            raise ValueError(f"a concurrency of {concurrency} does nothing")
        self._nats_urls = [nats_urls] if isinstance(nats_urls, str) else list(nats_urls)
        self._name = name
        self._concurrency = concurrency
        self._drain_s = drain_s
        self._connect = dict(connect or {})
        self.handlers = Handlers()
        self._stopping = asyncio.Event()
        self._throttle = LogThrottle(time.monotonic)
        self._assignments = Assignments(self.handlers, self._throttle)

    def job(self, job_type: str, payload: type[Any] = dict) -> Callable[[H], H]:
        """Decorates the handler of a job type (`ANY_TYPE`: of all that have none), an async function of one `Job`.

        `payload` is what its payload is decoded to, such as a `msgspec.Struct` or a dataclass; one that does not fit is
        a BAD_PAYLOAD error.

        :raises ValueError: the type has a handler already.
        """

        def register(handler: H) -> H:
            self.handlers.add(job_type, handler, payload)
            return handler

        return register

    def run_until_signal(self) -> None:
        """Run on an event loop of its own until SIGTERM or SIGINT, then drain."""
        asyncio.run(self._run_until_signal())

    async def _run_until_signal(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.run()

    def stop(self) -> None:
        """Begin the drain; safe to call more than once and from a signal handler of the loop."""
        self._stopping.set()
        self._assignments.freed.set()

    async def run(self) -> None:
        """Work until `stop`. A NATS that is away, now or later, is waited for."""
        known: dict[str, Any] = {"name": self._name, "max_reconnect_attempts": -1}
        known |= {"error_cb": self._nats_failed, "reconnected_cb": self._nats_is_there}
        client = await self._connected(known)
        if client is None:
            return
        await self._nats_is_there()
        beating = asyncio.create_task(self._beat(client))
        try:
            await self._work(client)
            await self._drain(client)
        finally:
            beating.cancel()
            await _close(client)

    async def _connected(self, known: dict[str, Any]) -> "Client | None":
        """A connection, however long that takes; None: stopped before there was one."""
        connecting = asyncio.ensure_future(nats.connect(self._nats_urls, **known | self._connect))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if connecting.done():
            return connecting.result()
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        return None

    async def _nats_failed(self, error: Exception) -> None:
        """nats-py tells every try to reconnect: said at the beginning, then once a minute."""
        if self._throttle.due(type(error).__name__) is not None:
            log.warning("NATS: %s", str(error) or type(error).__name__)

    async def _nats_is_there(self) -> None:
        self._throttle.over()
        log.info("connected to NATS")

    async def _work(self, client: "Client") -> None:
        js = client.jetstream()
        source = await js.pull_subscribe_bind(consumer=messages.ASSIGN_CONSUMER, stream=messages.ASSIGN_STREAM)
        failures = 0
        while not self._stopping.is_set():
            free = self._concurrency - len(self._assignments)
            if free <= 0:
                self._assignments.freed.clear()
                await self._assignments.freed.wait()
                continue
            try:
                batch = await source.fetch(free, timeout=FETCH_S)
            except TimeoutError:
                failures = 0
                continue
            except (nats.errors.Error, APIError) as e:
                delay = RETRY_S[min(failures, len(RETRY_S) - 1)]
                failures += 1
                if self._throttle.due("fetch") is not None:
                    log.warning("cannot fetch assignments (%s); trying on", str(e) or type(e).__name__)
                await self._pause(delay)
                continue
            failures = 0
            for message in batch:
                try:
                    await self._assignments.take(client, js, message)
                except nats.errors.Error as e:
                    log.warning("an assignment is not taken (%s); it comes again", e or type(e).__name__)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _drain(self, client: "Client") -> None:
        log.info("draining: %d running", len(self._assignments))
        if self._assignments:
            await self._tell(client, "draining")
            await self._assignments.end(self._drain_s)
        await self._tell(client, "stopped")

    async def _beat(self, client: "Client") -> None:
        while True:
            status = "draining" if self._stopping.is_set() else "busy" if self._assignments else "idle"
            await self._tell(client, status)
            await asyncio.sleep(HEARTBEAT_S)

    async def _tell(self, client: "Client", status: str) -> None:
        """One heartbeat; without NATS it is left out, since the next one says more than an old one."""
        if client.is_connected:
            with suppress(nats.errors.Error):
                await client.publish(subjects.HEARTBEAT, self._heartbeat(status))

    def _heartbeat(self, status: str) -> bytes:
        return messages.heartbeat(self._name, status, len(self._assignments) / self._concurrency)


async def _close(client: "Client") -> None:
    """Send what is queued and end the connection; a NATS that is away is no fault of a worker that ends."""
    with suppress(nats.errors.Error, OSError, TimeoutError):
        if client.is_connected:
            await client.flush(timeout=FLUSH_S)
    with suppress(nats.errors.Error, OSError):  # it fails in the middle when the connection is lost; then it is closed
        await client.close()
