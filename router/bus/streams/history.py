"""Reading the contents of a stream without changing it: no durable consumer and no acks.

Each read uses an ephemeral consumer, which the server removes when no pull comes. Batches are awaited one after the
other, so a long stream costs time and not memory. A read ends with the messages that were stored when it started.
"""

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.faults import BusTimeoutError
from router.bus.client.permissions import Refusal
from router.bus.client.subscriptions import Subscription
from router.bus.streams import api
from router.bus.streams.specs import matches
from router.errors import BusError, PermissionRefused
from router.ports.bus import StoredMessage

BATCH = 256
_EXPIRES_S = 5.0
_NO_MESSAGE = 10037


class _Created(Struct):
    name: str
    num_pending: int = 0


class _Stored(Struct):
    subject: str
    seq: int
    time: datetime
    data: str = ""
    hdrs: str = ""


class _Reply(Struct):
    message: _Stored


class _Deleted(Struct):
    success: bool = False


class StreamHistory:
    """Implements `ports.bus.History` for one stream.

    `subjects`: those of the stream's messages that count, all others are skipped; empty: all count.
    """

    def __init__(self, bus: Bus, stream: str, *, subjects: Sequence[str] = ()) -> None:
        self._bus = bus
        self.stream = stream
        self._subjects = subjects

    async def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[StoredMessage], None]:
        """Yield the messages stored since `since_ms` (Unix time) until now, in batches, oldest first.

        :raises BusError: JetStream is unavailable, or there is no such stream.
        """
        if subject is None and len(self._subjects) == 1:
            (subject,) = self._subjects
        created = await self._consumer(since_ms, subject, headers_only=headers_only)
        puller = _Puller(self._bus, self.stream, consumer=created.name)
        try:
            await puller.open()
            left = created.num_pending
            while left > 0:
                batch, pending = await puller.batch(min(BATCH, left))
                if not batch:
                    return
                if subject is None and self._subjects:
                    yield [
                        message for message in batch if any(matches(x, subject=message.subject) for x in self._subjects)
                    ]
                else:
                    yield batch
                left = min(left - len(batch), pending)
        finally:
            await puller.close()
            with contextlib.suppress(BusError):  # the server removes it when no pull comes
                await api.call(self._bus, f"CONSUMER.DELETE.{self.stream}.{created.name}", None, _Deleted)

    async def _consumer(self, since_ms: int | None, subject: str | None, *, headers_only: bool) -> _Created:
        config: dict[str, object] = {
            "deliver_policy": "all",
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30_000_000_000,
            "headers_only": headers_only,
        }
        if since_ms is not None:
            config["deliver_policy"] = "by_start_time"
            config["opt_start_time"] = datetime.fromtimestamp(max(0, since_ms) / 1000, UTC).isoformat()
        if subject is not None:
            config["filter_subject"] = subject
        request = {"stream_name": self.stream, "config": config}
        return await api.call(self._bus, f"CONSUMER.CREATE.{self.stream}", request, _Created)

    async def stored_ids(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Return those of the Nats-Msg-Ids that the stream has stored since `since_ms`.

        :raises BusError: JetStream is unavailable.
        """
        wanted_ids, stored_ids = set(message_ids), set()
        async with contextlib.aclosing(self.read(since_ms=since_ms, headers_only=True)) as batches:
            async for batch in batches:
                stored_ids |= wanted_ids.intersection(message.message_id for message in batch)
                if len(stored_ids) == len(wanted_ids):
                    break
        return stored_ids

    async def get(self, sequence: int) -> StoredMessage | None:
        """Read one message; None: the stream does not have it, or no longer.

        :raises BusError: JetStream is unavailable, or there is no such stream.
        """
        try:
            reply = await api.call(self._bus, f"STREAM.MSG.GET.{self.stream}", {"seq": sequence}, _Reply)
        except api.JetStreamError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise
        stored = reply.message
        raw_headers = b64decode(stored.hdrs)
        return StoredMessage(
            sequence=stored.seq,
            subject=stored.subject,
            at_ms=int(stored.time.timestamp() * 1000),
            headers=wire.decode(raw_headers) if raw_headers else {},
            data=b64decode(stored.data),
        )

    async def delete(self, sequence: int) -> None:
        """Delete one message from the stream.

        :raises BusError: JetStream is unavailable, or the stream does not have the message.
        """
        await api.call(self._bus, f"STREAM.MSG.DELETE.{self.stream}", {"seq": sequence}, _Deleted)


class _Puller:
    """Pulls batches from an ephemeral consumer, one after the other."""

    def __init__(self, bus: Bus, stream: str, *, consumer: str) -> None:
        self._bus = bus
        self._next = wire.subject(f"{bus.options.js_prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._inbox = bus.new_inbox().encode()
        self._arrived: asyncio.Queue[tuple[StoredMessage, int] | PermissionRefused | None] = asyncio.Queue()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        self._bus.on_publish_refused.append(self._on_refused)
        self._subscription = await self._bus.subscribe(self._inbox.decode(), self._on_message)

    async def close(self) -> None:
        with contextlib.suppress(ValueError):  # not opened
            self._bus.on_publish_refused.remove(self._on_refused)
        if self._subscription is not None:
            await self._subscription.close()

    async def batch(self, maximum: int) -> tuple[list[StoredMessage], int]:
        """Return up to `maximum` messages and the number of messages after them; an empty batch is the end.

        :raises PermissionRefused: the user may not pull.
        :raises BusTimeoutError: the server delivers nothing.
        """
        request = msgspec.json.encode({"batch": maximum, "expires": int(_EXPIRES_S * 1e9)})
        self._bus.send(wire.publish(self._next, reply=self._inbox, block=b"", payload=request))
        batch: list[StoredMessage] = []
        pending = 0
        while len(batch) < maximum:
            try:
                item = await asyncio.wait_for(self._arrived.get(), 2 * _EXPIRES_S)
            except TimeoutError as error:
                raise BusTimeoutError("the stream was not read to its end: the server delivers nothing") from error
            if isinstance(item, PermissionRefused):
                raise item
            if item is None:
                break
            message, pending = item
            batch.append(message)
        return batch, pending

    def _on_refused(self, refusal: Refusal) -> None:
        if refusal.subject == self._next.decode():
            self._arrived.put_nowait(PermissionRefused(str(refusal)))

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        parts = reply.split(b".")
        if len(parts) < 9:  # a status message: the pull request expired
            self._arrived.put_nowait(None)
            return
        first = 4 if len(parts) == 9 else 6
        sequence, at_ns, pending = int(parts[first + 1]), int(parts[first + 3]), int(parts[first + 4])
        headers = wire.decode(raw) if raw is not None else {}
        message = StoredMessage(
            sequence=sequence, subject=subject.decode(), at_ms=at_ns // 1_000_000, headers=headers, data=data
        )
        self._arrived.put_nowait((message, pending))
