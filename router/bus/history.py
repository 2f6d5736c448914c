"""What a stream holds, read from the outside: no durable consumer, no acks, nothing is taken away.

A read goes through an ephemeral consumer of its own (the server forgets it when nobody pulls), in batches that are
awaited one after the other, so that a long stream costs time and not memory. It ends with what was there when it began.
"""

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import AsyncGenerator, Collection
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from router.bus import api
from router.bus import headers as wire
from router.bus.connection import Bus, Subscription
from router.bus.faults import BusTimeoutError
from router.errors import BusError
from router.ports.bus import Kept

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


class _Found(Struct):
    message: _Stored


class _Done(Struct):
    success: bool = False


class StreamHistory:
    """`ports.History` of one stream."""

    def __init__(self, bus: Bus, stream: str) -> None:
        self._bus = bus
        self.stream = stream

    async def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[Kept], None]:
        """Batches, oldest first, of what was stored from `since_ms` (Unix time) on, up to the moment of the call.

        :raises BusError: JetStream cannot be reached, or there is no such stream.
        """
        created = await self._consumer(since_ms, subject, headers_only=headers_only)
        puller = _Puller(self._bus, self.stream, created.name)
        try:
            await puller.open()
            left = created.num_pending
            while left > 0:
                batch, pending = await puller.batch(min(BATCH, left))
                if not batch:
                    return
                yield batch
                left = min(left - len(batch), pending)
        finally:
            await puller.close()
            with contextlib.suppress(BusError):  # it ends by itself when nobody pulls
                await api.call(self._bus, f"CONSUMER.DELETE.{self.stream}.{created.name}", None, _Done)

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

    async def holds(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Which of these Nats-Msg-Ids the stream has, among what was stored from `since_ms` on.

        :raises BusError: JetStream cannot be reached.
        """
        wanted, found = set(message_ids), set()
        async with contextlib.aclosing(self.read(since_ms=since_ms, headers_only=True)) as batches:
            async for batch in batches:
                found |= wanted.intersection(kept.message_id for kept in batch)
                if len(found) == len(wanted):
                    break
        return found

    async def get(self, sequence: int) -> Kept | None:
        """One message; None: it is not there (any more).

        :raises BusError: JetStream cannot be reached, or there is no such stream.
        """
        try:
            answer = await api.call(self._bus, f"STREAM.MSG.GET.{self.stream}", {"seq": sequence}, _Found)
        except api.JetStreamError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise
        one = answer.message
        raw = b64decode(one.hdrs)
        return Kept(
            one.seq, one.subject, int(one.time.timestamp() * 1000), wire.decode(raw) if raw else {}, b64decode(one.data)
        )

    async def delete(self, sequence: int) -> None:
        """Take one message out of the stream.

        :raises BusError: JetStream cannot be reached, or it was not there.
        """
        await api.call(self._bus, f"STREAM.MSG.DELETE.{self.stream}", {"seq": sequence}, _Done)


class _Puller:
    """Pulls one batch after the other from an ephemeral consumer."""

    def __init__(self, bus: Bus, stream: str, consumer: str) -> None:
        self._bus = bus
        self._next = wire.subject(f"{bus.options.js_prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._inbox = bus.new_inbox().encode()
        self._arrived: asyncio.Queue[tuple[Kept, int] | None] = asyncio.Queue()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        self._subscription = await self._bus.subscribe(self._inbox.decode(), self._on_message)

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()

    async def batch(self, maximum: int) -> tuple[list[Kept], int]:
        """Up to `maximum` messages, and how many are left after them; none: the stream has no more.

        :raises BusTimeoutError: the server does not deliver.
        """
        request = msgspec.json.encode({"batch": maximum, "expires": int(_EXPIRES_S * 1e9)})
        self._bus.send(wire.publish(self._next, self._inbox, b"", request))
        found: list[Kept] = []
        pending = 0
        while len(found) < maximum:
            try:
                item = await asyncio.wait_for(self._arrived.get(), 2 * _EXPIRES_S)
            except TimeoutError as error:
                raise BusTimeoutError("the stream was not read to its end: the server does not deliver") from error
            if item is None:
                break
            kept, pending = item
            found.append(kept)
        return found, pending

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        parts = reply.split(b".")
        if len(parts) < 9:  # a word about the pull: it has run its time
            self._arrived.put_nowait(None)
            return
        first = 4 if len(parts) == 9 else 6
        sequence, at_ns, pending = int(parts[first + 1]), int(parts[first + 3]), int(parts[first + 4])
        headers = wire.decode(raw) if raw is not None else {}
        self._arrived.put_nowait((Kept(sequence, subject.decode(), at_ns // 1_000_000, headers, data), pending))
