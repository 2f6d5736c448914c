"""The worker's loop.

An assignment is acknowledged to JetStream only after its result is stored, so a worker that dies loses nothing: the
server hands the message to another one after its ack wait (long tasks prolong it), or the router starts the next
attempt at the deadline, whichever is first. The last 4096 assignment ids are remembered, so a second delivery is not
run twice here. A drain stops fetching, finishes what runs, and gives back what is not done in time.
"""

import asyncio
import logging
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import nats
import nats.errors
from nats.js.errors import APIError

from router.seldom import Seldom
from router.worker import messages
from router.worker.job import Handler, Handlers, Rejected
from router.worker.messages import Assignment, Finished

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

log = logging.getLogger(__name__)

REMEMBERED = 4096
FETCH_S = 1.0
PROLONG_S = 10.0
HEARTBEAT_S = 5.0
FLUSH_S = 2
RETRY_S = (0.05, 0.2, 1.0, 2.0)

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
        self._running: dict[str, asyncio.Task[None]] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._freed = asyncio.Event()
        self._seldom = Seldom(time.monotonic)

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
        self._freed.set()

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
        if self._seldom.due(type(error).__name__) is not None:
            log.warning("NATS: %s", str(error) or type(error).__name__)

    async def _nats_is_there(self) -> None:
        self._seldom.over()
        log.info("connected to NATS")

    async def _work(self, client: "Client") -> None:
        js = client.jetstream()
        source = await js.pull_subscribe_bind(consumer=messages.ASSIGN_CONSUMER, stream=messages.ASSIGN_STREAM)
        failures = 0
        while not self._stopping.is_set():
            free = self._concurrency - len(self._running)
            if free <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                batch = await source.fetch(free, timeout=FETCH_S)
            except TimeoutError:
                failures = 0
                continue
            except (nats.errors.Error, APIError) as e:
                delay = RETRY_S[min(failures, len(RETRY_S) - 1)]
                failures += 1
                if self._seldom.due("fetch") is not None:
                    log.warning("cannot fetch assignments (%s); trying on", str(e) or type(e).__name__)
                await self._pause(delay)
                continue
            failures = 0
            for message in batch:
                try:
                    await self._take(client, js, message)
                except nats.errors.Error as e:
                    log.warning("an assignment is not taken (%s); it comes again", e or type(e).__name__)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _take(self, client: "Client", js: "JetStreamContext", message: "Msg") -> None:
        try:
            assignment = messages.read_assignment(message.data)
        except msgspec.DecodeError as e:
            reason = "DECODE_ERROR" if isinstance(e, msgspec.ValidationError) else "PARSE_ERROR"
            where = f"{messages.ASSIGN_STREAM}:{message.metadata.sequence.stream}"
            log.warning("not an assignment: %s is %s", where, e)
            await client.publish(messages.DEAD_LETTER_SUBJECT, messages.dead_letter(reason, where, _now_ms()))
            await message.term()
            return
        name = assignment.assignment_id
        if name in self._running:
            await message.in_progress()
        elif name in self._done:
            await message.ack()
        else:
            task = asyncio.create_task(self._perform(client, js, message, assignment))
            self._running[name] = task
            task.add_done_callback(lambda t: self._ended(name, t))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        self._freed.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("assignment %s was not finished; it will be delivered again", name, exc_info=error)
            return
        self._done[name] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    async def _perform(self, client: "Client", js: "JetStreamContext", message: "Msg", assignment: Assignment) -> None:
        if not self.handlers.takes(assignment.job.type):
            await self._reject(client, message, assignment, f"this worker runs {', '.join(self.handlers.types)}")
            return
        await client.publish(messages.ACK_SUBJECT, messages.receipt(assignment, "accepted"))
        started = time.monotonic()
        work = asyncio.create_task(self.handlers.run(assignment, _time_left_s(assignment)))
        try:
            while not (await asyncio.wait({work}, timeout=PROLONG_S))[0]:
                await message.in_progress()
            finished = work.result()
        except Rejected as e:
            await self._reject(client, message, assignment, str(e))
            return
        except asyncio.CancelledError:
            work.cancel()
            await message.nak()
            raise
        latency_ms = round((time.monotonic() - started) * 1000)
        await self._store(js, assignment, finished, latency_ms)
        await message.ack()

    async def _reject(self, client: "Client", message: "Msg", assignment: Assignment, why: str) -> None:
        log.warning("%s of type %r is rejected: %s", assignment.assignment_id, assignment.job.type, why)
        await client.publish(messages.ACK_SUBJECT, messages.receipt(assignment, "rejected", why))
        await client.flush()
        await message.ack()

    async def _store(self, js: "JetStreamContext", assignment: Assignment, finished: Finished, latency_ms: int) -> None:
        """Store the result; the same Nats-Msg-Id makes the repeats harmless."""
        payload = messages.result(assignment, finished, latency_ms, _now_ms())
        headers = {"Nats-Msg-Id": f"{assignment.assignment_id}:result", "tenant_id": assignment.tenant_id}
        for delay in RETRY_S:
            try:
                await js.publish(messages.RESULT_SUBJECT, payload, headers=headers, timeout=2)
            except (nats.errors.Error, APIError, TimeoutError) as e:
                if self._seldom.due("store") is not None:
                    why = str(e) or type(e).__name__
                    log.warning("result of %s is not stored yet: %s; trying on", assignment.assignment_id, why)
                await asyncio.sleep(delay)
            else:
                return
        await js.publish(messages.RESULT_SUBJECT, payload, headers=headers, timeout=5)

    async def _drain(self, client: "Client") -> None:
        running = list(self._running.values())
        log.info("draining: %d running", len(running))
        if running:
            await self._tell(client, "draining")
            _, late = await asyncio.wait(running, timeout=self._drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._tell(client, "stopped")

    async def _beat(self, client: "Client") -> None:
        while True:
            status = "draining" if self._stopping.is_set() else "busy" if self._running else "idle"
            await self._tell(client, status)
            await asyncio.sleep(HEARTBEAT_S)

    async def _tell(self, client: "Client", status: str) -> None:
        """One heartbeat; without NATS it is left out, since the next one says more than an old one."""
        if client.is_connected:
            with suppress(nats.errors.Error):
                await client.publish(messages.HEARTBEAT_SUBJECT, self._heartbeat(status))

    def _heartbeat(self, status: str) -> bytes:
        return messages.heartbeat(self._name, status, len(self._running) / self._concurrency)


async def _close(client: "Client") -> None:
    """Send what is queued and end the connection; a NATS that is away is no fault of a worker that ends."""
    with suppress(nats.errors.Error, OSError, TimeoutError):
        if client.is_connected:
            await client.flush(timeout=FLUSH_S)
    with suppress(nats.errors.Error, OSError):  # it fails in the middle when the connection is lost; then it is closed
        await client.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time_left_s(assignment: Assignment) -> float | None:
    """Seconds until the deadline or the payload's timeout_ms, whichever is sooner; None without either."""
    bounds: list[float] = []
    if assignment.deadline_at_ms is not None:
        bounds.append((assignment.deadline_at_ms - _now_ms()) / 1000)
    timeout_ms = assignment.job.payload.get("timeout_ms")
    if isinstance(timeout_ms, int | float) and not isinstance(timeout_ms, bool):
        bounds.append(timeout_ms / 1000)
    return max(0.0, min(bounds)) if bounds else None
