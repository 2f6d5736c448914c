"""The door that decide requests come through: core NATS, a queue group, no task per message.

`beamline.router.v1.decide` and `….decide.<tenant>` (everything after `decide.`, dots included, names the tenant;
whether it may be one is the handler's to say). The handler is a plain function, called in the read loop in the order of
arrival; it queues the request and returns. So nothing waits inside the client: what the pod cannot take in time stays
in the socket (at most 320 KiB here) and in the server (its `max_pending`); how much may be in flight is the handler's
bound. Replies of one tick leave in one write, each with the header `router-pod`.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from router.bus import headers as wire
from router.bus.connection import Bus, Subscription
from router.errors import BusError
from router.telemetry.events import Event
from router.wire import subjects

log = logging.getLogger(__name__)

QUEUE = "router"

Reply = Callable[[bytes, Mapping[str, str] | None], None]
"""`reply(body, headers)`: sends the answer; never raises. Call it once."""

Handle = Callable[[bytes, Mapping[str, str] | None, str | None, Reply | None], None]
"""`handle(data, headers, subject_tenant, reply)`; `reply` is None when the caller left no reply subject."""


class DecideDoor:
    """Closed until `open()`. A reply that cannot be sent is logged, and its caller waits in vain."""

    def __init__(
        self, bus: Bus, handle: Handle, pod: str, *, subject: str = subjects.DECIDE, queue: str = QUEUE
    ) -> None:
        self._bus = bus
        self._handle = handle
        self._subject = subject
        self._queue = queue
        self._tenant_from = len(subject) + 1
        self._pod = {"router-pod": pod}
        self._block = wire.encode(self._pod)
        self._subscriptions: list[Subscription] = []

    async def open(self) -> None:
        """Ask for requests; when connected, the server knows of it on return. Nothing happens when it is open."""
        if self._subscriptions:
            return
        for subject in (self._subject, f"{self._subject}.>"):
            self._subscriptions.append(await self._bus.subscribe(subject, self._on_message, queue=self._queue))

    async def pause(self) -> None:
        """Ask for no more, and return when all that this connection's server had sent was given to the handler.

        The handler's answers to it may still be on their way: wait for them, then `Bus.flush`. `open()` opens it again.
        """
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        tenant = subject[self._tenant_from :]
        self._handle(
            data,
            wire.decode(raw) if raw is not None else None,
            tenant.decode("utf-8", "replace") if tenant else None,
            partial(self._reply, reply) if reply else None,
        )

    def _reply(self, to: bytes, body: bytes, headers: Mapping[str, str] | None) -> None:
        try:
            block = wire.encode({**headers, **self._pod}) if headers else self._block
            if len(block) + len(body) > self._bus.max_payload:
                raise BusError(f"a reply of {len(body)} bytes is more than the server takes")
            self._bus.send(wire.publish(to, b"", block, body))
        except (BusError, ValueError) as error:
            log.error("a decide reply could not be sent: %s", error, extra={"event": Event.BUS_ERROR})
