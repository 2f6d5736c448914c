"""Request/reply for rare requests (admin, status, get_decision): one task and one reply per request, limited."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.subscriptions import Subscription
from router.bus.streams.reply_subjects import ReplySubjects
from router.errors import BusError
from router.ports.bus import Reply
from router.telemetry.events import Event

log = logging.getLogger(__name__)

Headers = Mapping[str, str]
Handler = Callable[[bytes, Headers, str], Awaitable[Reply]]
"""`await handler(data, headers, subject)`."""

FaultReply = Callable[[str, str], bytes]
"""`fault_reply(code, message)` → body of an error reply; code: `internal`, `unavailable` or `service_overloaded`."""


class Service:
    """A served subject; see `serve`."""

    def __init__(
        self,
        bus: Bus,
        handler: Handler,
        fault_reply: FaultReply,
        *,
        replies: ReplySubjects,
        headers: Headers,
        max_in_flight: int,
        timeout_s: float,
    ) -> None:
        self._bus = bus
        self._handler = handler
        self._fault_reply = fault_reply
        self._replies = replies
        self._headers = headers
        self._max_in_flight = max_in_flight
        self._timeout_s = timeout_s
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults = 0

    async def listen(self, subject: str, *, queue: str, optional: bool) -> None:
        """Start to serve a subject; `optional` as for `Bus.subscribe`."""
        subscription = await self._bus.subscribe(subject, self._on_message, queue=queue, optional=optional)
        self._subscriptions.append(subscription)

    async def stop(self) -> None:
        """Stop taking requests, and return when the accepted ones have replies."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.close()
        await asyncio.gather(*self._tasks)

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        if not reply:
            return  # without a reply subject no reply is possible
        if not reply.startswith(self._replies.passing) and not self._replies.admits(reply, subject):
            return
        if len(self._tasks) >= self._max_in_flight:
            self._send(
                reply, body=self._fault_reply("service_overloaded", "too many requests at once: retry"), headers={}
            )
            return
        headers = wire.decode(raw) if raw is not None else {}
        task = asyncio.get_running_loop().create_task(
            self._serve(subject.decode("utf-8", errors="replace"), reply, data=data, headers=headers)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, subject: str, reply: bytes, *, data: bytes, headers: Headers) -> None:
        reply_headers: Headers = {}
        try:
            body, reply_headers = await asyncio.wait_for(self._handler(data, headers, subject), self._timeout_s)
        except TimeoutError:
            self.faults += 1
            log.error("request on %s not served in time", subject, extra={"event": Event.BUS_ERROR})
            body = self._fault_reply("unavailable", "the reply was not ready in time: retry")
        except Exception:  # the caller gets a reply, and the log the whole error
            self.faults += 1
            log.exception("request on %s failed", subject, extra={"event": Event.BUG})
            body = self._fault_reply("internal", "the request failed; see the router's log")
        self._send(reply, body=body, headers=reply_headers)

    def _send(self, to: bytes, *, body: bytes, headers: Headers) -> None:
        try:
            if len(body) > self._bus.max_payload - 4096:
                body = self._fault_reply("internal", "the reply is larger than the NATS server takes")
            merged = {**headers, **self._headers}
            self._bus.replies.send(to, wire.encode(merged) if merged else b"", body)
        except (BusError, ValueError) as error:
            self.faults += 1
            log.error("reply could not be sent: %s", error, extra={"event": Event.BUS_ERROR})


async def serve(
    bus: Bus,
    subject: str,
    queue: str,
    handler: Handler,
    fault_reply: FaultReply,
    *,
    replies: ReplySubjects | None = None,
    headers: Headers | None = None,
    max_in_flight: int = 64,
    timeout_s: float = 10.0,
    optional: bool = False,
) -> Service:
    """Send one reply to each request on the subject: the handler's, or else an error reply with a log line.

    Every reply has `headers`. At most `max_in_flight` requests run at a time, each for at most `timeout_s`. A request
    whose reply subject is refused (`router.bus.streams.reply_subjects`) is dropped before it is read. `optional`: a
    subscription that NATS does not permit is no error, and is tried again.
    """
    service = Service(
        bus,
        handler,
        fault_reply,
        replies=replies or ReplySubjects(),
        headers=headers or {},
        max_in_flight=max_in_flight,
        timeout_s=timeout_s,
    )
    await service.listen(subject, queue=queue, optional=optional)
    return service
