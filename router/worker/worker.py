"""A worker process: connect, fetch as many assignments as there are free slots, send heartbeats, drain.

A drain stops fetching and waits for the running assignments. Those that do not finish in time go back to the server.
"""

import asyncio
import logging
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors
from nats.js.errors import APIError

from router.log_throttle import LogThrottle
from router.nats_tls import connect
from router.wire import subjects
from router.worker import messages
from router.worker.assignments import RETRY_DELAYS_S, Assignments
from router.worker.job import Handler, Handlers

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger(__name__)

FETCH_S = 1.0
HEARTBEAT_S = 5.0
FLUSH_S = 2

H = TypeVar("H", bound=Handler)

_REFUSED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"').search
_NOT_PERMITTED = (
    "NATS does not permit this user to %s to %s: `router acl nats --for worker` prints the rights of a worker, and its "
    "inbox prefix"
)


class Worker:
    """A worker process; the package docstring shows how to write a worker.

    `connect` holds more keywords for `nats.connect`, such as credentials and TLS. `drain_s` is how long running
    assignments may take after a stop; the server delivers the others again. `stream` is the stream of assignments,
    `consumer` the consumer that delivers them, `js_prefix` the first tokens of JetStream's API: `$JS.<domain>.API`
    behind a leaf node.

    `tenant`: run this tenant's assignments only, and report on its subjects, for a NATS user that is restricted to it.
    Give the tenant a consumer of its own: assignments of other tenants go back to the server, which delivers them
    again.
    """

    def __init__(
        self,
        nats_urls: str | Sequence[str],
        *,
        name: str,
        concurrency: int = 32,
        drain_s: float = 20.0,
        connect: Mapping[str, object] | None = None,
        stream: str = messages.ASSIGN_STREAM,
        consumer: str = messages.ASSIGN_CONSUMER,
        js_prefix: str = "$JS.API",
        tenant: str | None = None,
    ) -> None:
        """:raises ValueError: `concurrency` is below 1, or the tenant's name cannot be part of a subject."""
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}: it must be at least 1")
        if tenant is not None and not subjects.is_literal(subjects.of_tenant(subjects.RESULT, tenant_id=tenant)):
            raise ValueError(f"the tenant {tenant!r} cannot be part of a subject: leave it out")
        self._nats_urls = [nats_urls] if isinstance(nats_urls, str) else list(nats_urls)
        self._name = name
        self._concurrency = concurrency
        self._drain_s = drain_s
        self._connect_options = dict(connect or {})
        self._stream, self._consumer, self._js_prefix = stream, consumer, js_prefix
        self.handlers = Handlers()
        self._stopping = asyncio.Event()
        self._throttle = LogThrottle(time.monotonic)
        self._assignments = Assignments(self.handlers, self._throttle, tenant)

    def job(self, job_type: str, payload: type[Any] = dict) -> Callable[[H], H]:
        """Register the decorated async function as the handler of a job type; its one argument is a `Job`.

        The handler of `ANY_TYPE` runs the types that have no handler of their own. `payload` is the type to which the
        payload is decoded, such as a `msgspec.Struct` or a dataclass. A payload that does not fit is a BAD_PAYLOAD
        error.

        :raises ValueError: the type has a handler already.
        """

        def register(handler: H) -> H:
            self.handlers.add(job_type, handler, payload)
            return handler

        return register

    def run_until_signal(self) -> None:
        """Run on a new event loop until SIGTERM or SIGINT, then drain."""
        asyncio.run(self._run_until_signal())

    async def _run_until_signal(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.run()

    def stop(self) -> None:
        """Start the drain; safe to call more than once and from a signal handler of the loop."""
        self._stopping.set()
        self._assignments.slot_freed.set()

    async def run(self) -> None:
        """Run assignments until `stop`. While NATS is unavailable, wait for it."""
        options: dict[str, Any] = {"name": self._name, "max_reconnect_attempts": -1}
        options |= {"error_cb": self._on_nats_error, "reconnected_cb": self._on_connected}
        client = await self._connect(options)
        if client is None:
            return
        await self._on_connected()
        heartbeats = asyncio.create_task(self._heartbeats(client))
        try:
            await self._fetch_assignments(client)
            await self._drain(client)
        finally:
            heartbeats.cancel()
            await _close(client)

    async def _connect(self, options: dict[str, Any]) -> "Client | None":
        """Connect, without a time limit; None: the worker was stopped first."""
        connecting = asyncio.ensure_future(connect(**{"servers": self._nats_urls} | options | self._connect_options))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if connecting.done():
            return connecting.result()
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        return None

    async def _on_nats_error(self, error: Exception) -> None:
        """Log an error of the connection. nats-py reports every try to reconnect: the log has one line per minute."""
        text = str(error) or type(error).__name__
        if (refused := _REFUSED(text)) is not None:
            verb, subject = refused[1], self._as_written(refused[2])
            if self._throttle.due(f"{verb} {subject}") is not None:
                log.error(_NOT_PERMITTED, "publish" if verb == "publish" else "subscribe", subject)
        elif self._throttle.due(type(error).__name__) is not None:
            log.warning("NATS error: %s", text)

    def _as_written(self, subject: str) -> str:
        """The subject of a refusal: nats-py makes the server's words lower case."""
        pulls = f"{self._js_prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        used = (*self._assignments.reports_on, subjects.HEARTBEAT, subjects.WORKER_DEAD_LETTER, pulls)
        prefix = str(self._connect_options.get("inbox_prefix") or "_INBOX")
        if subject.startswith(f"{prefix.lower()}."):
            return f"{prefix}.>"
        acks = f"$JS.ACK.{self._stream}.{self._consumer}"
        if subject.startswith(f"{acks.lower()}."):
            return f"{acks}.>"
        return next((known for known in used if known.lower() == subject), subject)

    async def _on_connected(self) -> None:
        self._throttle.over()
        log.info("connected to NATS")

    async def _fetch_assignments(self, client: "Client") -> None:
        js = client.jetstream(prefix=self._js_prefix)
        subscription = await js.pull_subscribe_bind(consumer=self._consumer, stream=self._stream)
        failures = 0
        while not self._stopping.is_set():
            free = self._concurrency - len(self._assignments)
            if free <= 0:
                self._assignments.slot_freed.clear()
                await self._assignments.slot_freed.wait()
                continue
            try:
                batch = await subscription.fetch(free, timeout=FETCH_S)
            except TimeoutError:
                failures = 0
                continue
            except (nats.errors.Error, APIError) as e:
                delay_s = RETRY_DELAYS_S[min(failures, len(RETRY_DELAYS_S) - 1)]
                failures += 1
                if self._throttle.due("fetch") is not None:
                    log.warning("cannot fetch assignments; retrying: %s", str(e) or type(e).__name__)
                await self._pause(delay_s)
                continue
            failures = 0
            for message in batch:
                try:
                    await self._assignments.start(client, js, message)
                except nats.errors.Error as e:
                    log.warning("assignment not started; the server delivers it again: %s", e or type(e).__name__)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until `stop`."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _drain(self, client: "Client") -> None:
        log.info("draining: %d assignments running", len(self._assignments))
        if self._assignments:
            await self._send_heartbeat(client, "draining")
            await self._assignments.drain(self._drain_s)
        await self._send_heartbeat(client, "stopped")

    async def _heartbeats(self, client: "Client") -> None:
        while True:
            status = "draining" if self._stopping.is_set() else "busy" if self._assignments else "idle"
            await self._send_heartbeat(client, status)
            await asyncio.sleep(HEARTBEAT_S)

    async def _send_heartbeat(self, client: "Client", status: str) -> None:
        """Send a heartbeat. Without NATS it is skipped, not queued: the next heartbeat is more current."""
        if client.is_connected:
            with suppress(nats.errors.Error):
                await client.publish(subjects.HEARTBEAT, self._heartbeat_message(status))

    def _heartbeat_message(self, status: str) -> bytes:
        return messages.heartbeat(self._name, status=status, load=len(self._assignments) / self._concurrency)


async def _close(client: "Client") -> None:
    """Send the queued messages and close the connection. Errors are ignored: the worker ends, and NATS may be down."""
    with suppress(nats.errors.Error, OSError, TimeoutError):
        if client.is_connected:
            await client.flush(timeout=FLUSH_S)
    with suppress(nats.errors.Error, OSError):  # close fails when the connection breaks meanwhile; it is closed then
        await client.close()
