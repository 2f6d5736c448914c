"""`Bus`: the permanent connection to NATS, on which the rest of this package is built.

`start()` returns at once and connects in the background, so a pod boots without a server. Subscriptions made before the
first connection are set up with it. Later, it reconnects without limit (`router.bus.client.upkeep`). `close()` sends
what is queued, then disconnects.

Everything runs on one event loop. Callbacks are plain functions; their return value is ignored.
"""

import contextlib
from collections.abc import Mapping
from uuid import uuid4

from router.bus.client import headers as wire
from router.bus.client import nats_py
from router.bus.client.fast import FastClient
from router.bus.client.faults import translated
from router.bus.client.options import BusOptions
from router.bus.client.parser import Direct
from router.bus.client.permissions import Permissions, Refusal
from router.bus.client.replies import Replies
from router.bus.client.reporter import Reporter
from router.bus.client.requests import Answer, Requests
from router.bus.client.subscriptions import Subscription, Subscriptions
from router.bus.client.upkeep import Upkeep
from router.errors import BusError, PermissionRefused


class Bus:
    """The connection; see the module. Append plain callbacks to `on_connect`, `on_disconnect` and `on_error`."""

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        self._permissions = Permissions(options.inbox_prefix)
        self._reporter = Reporter(self._permissions, options)
        self.counters = self._reporter.counters
        self.on_connect = self._reporter.on_connect
        self.on_disconnect = self._reporter.on_disconnect
        self.on_error = self._reporter.on_error
        self.on_publish_refused = self._permissions.on_publish_refused
        self.max_payload = 1 << 20
        """The maximum size of a message in bytes, set by the server; 1 MiB before the first connection."""
        self._subscriptions = Subscriptions(self._permissions, self._unsubscribe)
        self._upkeep = Upkeep(
            options,
            reporter=self._reporter,
            permissions=self._permissions,
            subscriptions=self._subscriptions,
            on_connected=self._connected,
        )
        self._requests = Requests(self._permissions)
        self._max_unsent = options.max_unsent_bytes
        self.replies = Replies(self)
        self._reporter.on_lame_duck.append(self.replies.server_leaves)

    def _connected(self, client: FastClient) -> None:
        self.max_payload = client.max_payload

    @property
    def _client(self) -> FastClient | None:
        return self._upkeep.client

    @property
    def connected(self) -> bool:
        """Whether the client is connected now, as far as it knows."""
        return self._client is not None and self._client.is_connected

    @property
    def connection(self) -> int:
        """The number of connects so far: it changes with each reconnect."""
        return self.counters.connects

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The version of the connected server; zeros before the first connection."""
        if self._client is None:
            return 0, 0, 0
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return 0 if self._client is None else self._client.unsent

    @property
    def last_error(self) -> str:
        """The last error of the connection since it was lost, or before the first; empty: none."""
        return self._reporter.last_error

    async def start(self) -> None:
        """Start to connect and return at once, with or without a server.

        :raises StartupRefused: the fast path does not fit the installed nats-py.
        """
        if not self._upkeep.is_started:
            nats_py.check()
            self._upkeep.start()

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the first connection; False: there was none within `timeout_s`."""
        return await self._upkeep.wait_connected(timeout_s)

    async def rtt(self, timeout_s: float = 2.0) -> float:
        """Measure one round trip to the server, in seconds.

        :raises BusError: not connected, or no reply in time.
        """
        client = self._connected_client()
        with translated("PING"):
            return await client.rtt(timeout_s)  # type: ignore[arg-type]  # seconds; nats-py annotates int

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Return when the server has read everything sent before.

        :raises BusError: not connected, or no reply in time.
        """
        await self.rtt(timeout_s)

    async def close(self) -> None:
        """Send what is queued, then close the connection; no callback runs afterwards."""
        if not self._upkeep.is_started:
            return
        if self.connected:
            with contextlib.suppress(BusError):  # the connection is closed even if the server is lost
                await self.flush()
        self._reporter.closing = True
        await self.replies.close()
        await self._upkeep.close()

    async def subscribe(self, subject: str, direct: Direct, *, queue: str = "", optional: bool = False) -> Subscription:
        """Call a plain function with each message of a subject, for the life of the bus.

        When connected, the server has the subscription on return; otherwise it is set up with the connection. An
        exception of `direct` goes to `on_error`, and the next message is handled. `optional`: a subscription that the
        server does not permit is tried again, like one that is lost later (`lost`).

        :raises PermissionRefused: the server does not permit the subscription, which is not optional; there is none.
        """
        return await self._subscriptions.subscribe(self._client, subject, direct, queue=queue, optional=optional)

    async def _unsubscribe(self, subscription: Subscription) -> None:
        await self._subscriptions.unsubscribe(self._client, subscription)

    @property
    def lost(self) -> Mapping[str, Refusal]:
        """The subscriptions that the server has dropped because a permission is missing, by subject.

        The bus subscribes to them again at least every 10 s.
        """
        return self._permissions.lost

    @property
    def inbox_refused(self) -> Refusal | None:
        """Why the server refuses the inboxes of this client, if it does now."""
        return self._permissions.inbox_refused()

    def publish_refused(self, subject: str, since: float) -> Refusal | None:
        """Why the server refused to publish to the subject, if it did since that monotonic time in seconds."""
        return self._permissions.publish_refused(subject, since)

    async def check_published(self, subject: str, since: float) -> None:
        """Return when the server has read everything sent before, and did not refuse the subject since that moment.

        :raises PermissionRefused: the user may not publish to the subject.
        :raises BusError: not connected, or no reply in time.
        """
        await self.flush()
        if (refused := self.publish_refused(subject, since)) is not None:
            raise PermissionRefused(str(refused))

    def new_inbox(self) -> str:
        """Return a new subject that has no other subscriber."""
        return f"{self.options.inbox_prefix}.{uuid4().hex}"

    def send(self, command: bytes) -> None:
        """Queue a protocol command (`headers.publish`). Commands queued while disconnected go out after the reconnect.

        :raises BusError: there was no connection yet, or `max_unsent_bytes` already wait; nothing was queued.
        """
        client = self._upkeep.client
        if client is None:
            raise BusError("not connected to NATS yet")
        if not client.send(command, self._max_unsent):
            raise BusError("too much data waits to be sent to NATS")

    def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Queue a core publish; delivery is at most once and unconfirmed.

        :raises BusError: as `send`; or the subject, a header name or the size is not valid.
        """
        try:
            command = wire.publish(
                wire.subject(subject), reply=b"", block=wire.encode(headers) if headers else b"", payload=payload
            )
        except ValueError as error:
            raise BusError(str(error)) from error
        if len(payload) > self.max_payload:
            raise BusError(f"{len(payload):,} bytes are more than the NATS server takes ({self.max_payload:,})")
        self.send(command)

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, *, timeout_s: float = 2.0
    ) -> Answer:
        """Send a request and return the first reply.

        :raises NoRespondersError: the subject has no subscriber.
        :raises PermissionRefused: the user may not publish to the subject, or not subscribe to inboxes; at once.
        :raises BusTimeoutError: no reply in time.
        :raises BusError: not connected, or the message is not valid.
        """
        return await self._requests.request(self._connected_client(), subject, payload, headers, timeout_s=timeout_s)

    def _connected_client(self) -> FastClient:
        client = self._client
        if client is None or not client.is_connected:
            raise BusError("not connected to NATS")
        return client

    async def renew(self, options: BusOptions) -> None:
        """Replace the connection by one with these credentials and TLS files, without losing a message.

        The new connection is made and has all subscriptions before the old one is drained and closed; meanwhile a
        message of a subscription without a queue may come on both. Before the first connection the options are only
        kept for it.

        :raises InvalidInput: the options are wrong, such as a key that does not fit its certificate.
        :raises BusError: the server refuses them, or is unavailable; the old connection stays.
        """
        await self._upkeep.renew(options)
