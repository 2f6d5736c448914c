"""The entry for decide requests: core NATS, a queue group, no task per message.

Subjects: `beamline.router.v1.decide` and `….decide.<tenant>`. Everything after `decide.`, dots included, is the tenant;
the handler checks it. The handler is a plain function, called in the order of arrival. It queues the request and
returns, so nothing waits inside the client. Requests that the pod cannot take in time stay in its socket
buffers (at most 320 KiB) and in the server (`max_pending`). The handler limits how many are in flight. All replies of
one event-loop tick leave in one write; each has the header `router-pod`. A request whose reply subject is refused
(`router.bus.streams.reply_subjects`) is dropped before it is read.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.subscriptions import Subscription
from router.bus.streams.reply_subjects import ReplySubjects
from router.errors import BusError
from router.telemetry.events import Event
from router.wire import subjects

log = logging.getLogger(__name__)

QUEUE = "router"

Reply = Callable[[bytes, Mapping[str, str] | None], None]
"""`reply(body, headers)` sends the reply and never raises; call it once."""

Handle = Callable[[bytes, Mapping[str, str] | None, str | None, Reply | None], None]
"""`handle(data, headers, subject_tenant, reply)`; `reply` is None when the request has no reply subject."""


class DecideEndpoint:
    """The entry; closed until `open()`. A reply that cannot be sent is only logged: its caller times out."""

    def __init__(
        self,
        bus: Bus,
        handle: Handle,
        pod: str,
        *,
        replies: ReplySubjects | None = None,
        subject: str = subjects.DECIDE,
        queue: str = QUEUE,
    ) -> None:
        self._bus = bus
        self._handle = handle
        self._replies = replies or ReplySubjects()
        self._passing = self._replies.passing
        self._subject = subject
        self._queue = queue
        self._tenant_from = len(subject) + 1
        self._pod = {"router-pod": pod}
        self._block = wire.encode(self._pod)
        self._subscriptions: list[Subscription] = []

    async def open(self) -> None:
        """Subscribe to requests; when connected, the server has the subscriptions on return. Safe to call again.

        :raises PermissionRefused: the user may not subscribe.
        """
        for subject in (self._subject, f"{self._subject}.>")[len(self._subscriptions) :]:
            self._subscriptions.append(await self._bus.subscribe(subject, self._on_message, queue=self._queue))

    async def pause(self) -> None:
        """Unsubscribe, and return when the handler has every request that the server sent before.

        Replies may still be pending: wait for the handler, then call `Bus.flush`. `open()` subscribes again.
        """
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        if reply and not reply.startswith(self._passing) and not self._replies.admits(reply, subject):
            return
        tenant = subject[self._tenant_from :]
        self._handle(
            data,
            wire.decode(raw) if raw is not None else None,
            tenant.decode("utf-8", errors="replace") if tenant else None,
            partial(self._reply, reply) if reply else None,
        )

    def _reply(self, to: bytes, body: bytes, headers: Mapping[str, str] | None) -> None:
        try:
            block = wire.encode({**headers, **self._pod}) if headers else self._block
            if len(block) + len(body) > self._bus.max_payload:
                raise BusError(f"a reply of {len(body):,} bytes is more than the NATS server takes")
            self._bus.replies.send(to, block, body)
        except (BusError, ValueError) as error:
            log.error("decide reply could not be sent: %s", error, extra={"event": Event.BUS_ERROR})
