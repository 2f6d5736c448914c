"""`Bus`: one connection to NATS that is kept for ever, and what everything else in this room is built on.

Life: `start()` returns at once and connects in the background, so that a pod boots without a server; subscriptions made
before are set up with the first connection. After that nats-py reconnects without end; should its client give up or get
stuck all the same, a watchdog replaces it and subscribes everything again. `close()` sends what is queued and ends.

Everything runs on one event loop. Callbacks are plain functions and are told, never asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from uuid import uuid4

from msgspec import Struct
from tenacity import AsyncRetrying, retry_if_not_exception_type, wait_random_exponential

from router.bus import headers as wire
from router.bus import nats_py
from router.bus.fast import Direct, FastClient
from router.bus.faults import translated
from router.bus.options import BusOptions, connect_arguments
from router.bus.reporter import Reporter
from router.errors import BusError, InvalidInput
from router.telemetry.events import Event

log = logging.getLogger(__name__)
_CANCEL_AGAIN_S = 0.2

_WATCH_S = 1.0


class Answer(Struct, frozen=True):
    """What came back for a request."""

    data: bytes
    headers: Mapping[str, str]


class Subscription:
    """A direct subscription of a `Bus`; it outlives connections and clients."""

    def __init__(self, bus: "Bus", subject: str, queue: str, direct: Direct) -> None:
        self.subject, self.queue, self.direct = subject, queue, direct
        self.sid: int | None = None
        self._bus = bus

    async def close(self) -> None:
        """Stop, after what the server has sent already was handed over. A lost server is no error."""
        await self._bus.unsubscribe(self)


class Bus:
    """See the module. Append plain callbacks to the lists `on_connect`, `on_disconnect`, `on_error`."""

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        self._reporter = Reporter()
        self.counters = self._reporter.counters
        self.on_connect = self._reporter.on_connect
        self.on_disconnect = self._reporter.on_disconnect
        self.on_error = self._reporter.on_error
        self.max_payload = 1 << 20
        """The server's bound on a message in bytes; 1 MiB before the first connection."""
        self._arguments = connect_arguments(options)
        self._client: FastClient | None = None
        self._subscriptions: dict[int, Subscription] = {}
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._max_unsent = options.max_unsent_bytes

    @property
    def connected(self) -> bool:
        """Whether a server is on the other end right now, as far as known."""
        return self._client is not None and self._client.is_connected

    @property
    def connection(self) -> int:
        """The number of the connection: another one after each reconnect."""
        return self.counters.connects

    @property
    def server_version(self) -> tuple[int, int, int]:
        """Of the server we are connected to; zeros before that."""
        if self._client is None:
            return 0, 0, 0
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return 0 if self._client is None else self._client.unsent

    async def start(self) -> None:
        """Begin to connect; returns at once, whether or not a server is there.

        :raises StartupRefused: the installed nats-py is not one that the fast path can build on.
        """
        if self._task is None:
            nats_py.check()
            self._task = asyncio.create_task(self._keep(), name="bus")

    async def wait_connected(self, timeout_s: float) -> bool:
        """Whether the first connection stood within the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        return self._up.is_set()

    async def rtt(self, timeout_s: float = 2.0) -> float:
        """Seconds for one round trip to the server.

        :raises BusError: not connected, or no answer in time.
        """
        client = self._live()
        with translated("PING"):
            return await client.rtt(timeout_s)  # type: ignore[arg-type]  # seconds; nats-py only says int

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Return when the server has read all that was sent before.

        :raises BusError: not connected, or no answer in time.
        """
        await self.rtt(timeout_s)

    async def close(self) -> None:
        """Send what is queued, then end the connection; nothing is called back afterwards."""
        if self._task is None:
            return
        if self.connected:
            with contextlib.suppress(BusError):  # a server that is going away is no reason to stay
                await self.flush()
        self._reporter.closing = True
        # Again and again: nats-py loses a cancellation that comes with a refused connection, and tries the next.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CANCEL_AGAIN_S)
        if not self._task.cancelled():
            self._task.exception()  # told by the reporter already
        self._task = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def subscribe(self, subject: str, direct: Direct, *, queue: str = "") -> Subscription:
        """Hand the messages of a subject to a plain function, for the life of the bus.

        When connected, the server knows of it on return; before that it is set up with the connection. A fault that
        `direct` raises is reported to `on_error` and the next message is served.
        """
        subscription = Subscription(self, subject, queue, direct)
        self._subscriptions[id(subscription)] = subscription
        if self._client is not None:
            with contextlib.suppress(BusError):  # the reconnect brings the subscription along
                with translated(subject):
                    subscription.sid = await self._client.subscribe_direct(subject, direct, queue=queue)
                await self.flush()
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """See `Subscription.close`."""
        self._subscriptions.pop(id(subscription), None)
        if self._client is not None and subscription.sid is not None:
            with contextlib.suppress(BusError), translated(subscription.subject):  # lost: nothing more will come
                await self._client.unsubscribe_direct(subscription.sid)
        subscription.sid = None

    def new_inbox(self) -> str:
        """A subject nobody else listens on."""
        return f"{self.options.inbox_prefix}.{uuid4().hex}"

    def send(self, command: bytes) -> None:
        """Queue a protocol command (`headers.publish`). What is queued while disconnected goes out after the reconnect.

        :raises BusError: there was no connection yet, or too much waits already; nothing was queued.
        """
        client = self._client
        if client is None:
            raise BusError("not connected to NATS yet")
        if client.pending_data_size > self._max_unsent:
            raise BusError("too much waits to be sent to NATS")
        client.send(command)

    def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Queue a core publish, at most once, without an answer.

        :raises BusError: as `send`; or the subject, a header name or the size is not for this server.
        """
        try:
            command = wire.publish(wire.subject(subject), b"", wire.encode(headers) if headers else b"", payload)
        except ValueError as error:
            raise BusError(str(error)) from error
        if len(payload) > self.max_payload:
            raise BusError(f"{len(payload)} bytes are more than the server takes ({self.max_payload})")
        self.send(command)

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, timeout_s: float = 2.0
    ) -> Answer:
        """One request, the first answer.

        :raises NoRespondersError: nobody listens.
        :raises BusTimeoutError: no answer in time.
        :raises BusError: not connected, or the message is not for this server.
        """
        client = self._live()
        with translated(subject):
            message = await client.request(subject, payload, timeout=timeout_s, headers=headers)
        return Answer(message.data, message.headers or {})

    def _live(self) -> FastClient:
        if self._client is None or not self._client.is_connected:
            raise BusError("not connected to NATS")
        return self._client

    async def _keep(self) -> None:
        """Connect, watch, replace."""
        while True:
            client = await self._connect()
            try:
                await self._take(client)
                while not client.stuck:  # noqa: ASYNC110 - nats-py has no event for it
                    await asyncio.sleep(_WATCH_S)
                log.error(
                    "the NATS client gave up and is replaced: %r", client.last_error, extra={"event": Event.BUS_ERROR}
                )
            except Exception:  # lost while it was being set up, or a callback's bug: without this loop nothing connects
                log.exception("the NATS client is replaced after a fault", extra={"event": Event.BUG})
                await asyncio.sleep(_WATCH_S)
            await client.close()

    async def _take(self, client: FastClient) -> None:
        """Make it the client of all subscriptions."""
        for subscription in self._subscriptions.values():
            subscription.sid = None
        while missing := [one for one in self._subscriptions.values() if one.sid is None]:
            for one in missing:
                one.sid = await client.subscribe_direct(one.subject, one.direct, queue=one.queue)
        self._client = client  # no await since the check: who subscribes from now on does it on this client
        self._connected()

    async def _connect(self) -> FastClient:
        """A connected client; nats-py tries for ever, and what it does not expect is tried again by us."""
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_not_exception_type((asyncio.CancelledError, InvalidInput)),
        )
        async for attempt in retrying:
            with attempt:
                client = FastClient()
                try:
                    await client.connect(
                        servers=list(self.options.urls),
                        error_cb=self._reporter.failed,
                        disconnected_cb=self._reporter.disconnected,
                        reconnected_cb=self._reconnected,
                        lame_duck_mode_cb=self._reporter.lame_duck,
                        **self._arguments,  # type: ignore[arg-type]  # one mapping for keywords of several types
                    )
                except asyncio.CancelledError:
                    await client.close()
                    raise
                except Exception as error:  # tried again; what it was is said, and not lost
                    await self._reporter.failed(error)
                    raise
                return client
        raise AssertionError("tenacity ended without a result")

    async def _reconnected(self) -> None:
        self._connected()

    def _connected(self) -> None:
        if self._client is not None:
            self.max_payload = self._client.max_payload
        self._up.set()
        self._reporter.connected()
