"""NATS: publishing into streams, reading streams back, and the messages that consumers deliver."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct

Reply = tuple[bytes, Mapping[str, str]]
"""Body and headers of a reply."""


NO_ACK = "no ack"
"""The reason for a message that no stream has answered."""


class Publication(Struct, frozen=True):
    """One message for JetStream. `message_id` is sent as the header Nats-Msg-Id.

    - `ttl_s`: how long the stream keeps the message, where it lets messages have a lifetime of their own.
    - `within_s`: give up after so many seconds, if the publisher does not give up earlier.
    - `failed`: called with the reason, such as the server's words, before `done` gets an outcome that is falsy.
    """

    subject: str
    payload: bytes
    message_id: str
    headers: dict[str, str] = {}
    core_is_enough: bool = False
    """Whether a core publish is expected here: if no stream covers the subject, operators get no log line."""
    ttl_s: int | None = None
    within_s: float | None = None
    failed: Callable[[str], None] | None = None


class Published(IntEnum):
    """The outcome of a publish. Only `STORED` and `DUPLICATE` are truthy."""

    UNSENT = -3
    """Never sent: no connection, too many messages wait, or the message is not valid."""
    UNANSWERED = -2
    """Sent and not answered, also because the pod stopped: the stream may hold the message."""
    REFUSED = -1
    """The server refused each try: no stream holds the message."""
    STORED = 1
    """The stream acknowledged the message; or no stream covers the subject, and the message went out core."""
    DUPLICATE = 2
    """Within its dedup window the stream had a message with this id. It keeps the earlier message."""

    def __bool__(self) -> bool:
        return self > 0


class StreamTrouble(Protocol):
    """Receives reports of streams that do not store publishes. `stream`: its name, or a subject outside the fleet's."""

    def refusing(self, stream: str, *, words: str) -> None:
        """A message was refused, or has had no answer for a second. Called again while that lasts."""

    def stored(self, stream: str) -> None:
        """The stream has stored a message again."""


class Publisher(Protocol):
    """Publishes into streams."""

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """Queue a publish. `done(outcome)` is called exactly once, from the event loop. Never raises."""


class Line(Protocol):
    """The connection to NATS, for callers that need proof that the server has read their messages."""

    @property
    def connection(self) -> int:
        """The number of the current connection. Each reconnect increases it."""

    async def flush(self) -> None:
        """Return when the server has read everything that was sent before the call.

        :raises BusError: the pod is not connected, or the server did not answer in time.
        """


class StoredMessage(Struct, frozen=True):
    """One message of a stream. `at_ms`: Unix time at which the server stored it.

    `data` is empty if only headers were read.
    """

    sequence: int
    subject: str
    at_ms: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def message_id(self) -> str:
        """The header Nats-Msg-Id; empty if the message has none."""
        return self.headers.get("Nats-Msg-Id", "")


class History(Protocol):
    """Reads stored messages of one stream. Every method raises `BusError` when JetStream did not execute it."""

    def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[StoredMessage], None]:
        """Yield batches of messages, oldest first, that were stored from `since_ms` (Unix time) until this call."""

    async def stored_ids(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Return those of the message ids that the stream stored at `since_ms` (Unix time) or later."""

    async def get(self, sequence: int) -> StoredMessage | None:
        """Return one message; None if the stream does not hold it any more."""

    async def delete(self, sequence: int) -> None:
        """Delete one message from the stream."""


class Delivery(Protocol):
    """A message that a consumer delivered.

    Only the first acknowledgement, positive or negative, is sent. Without one, the server delivers the message again
    after the consumer's ack wait.
    """

    data: bytes
    subject: str
    delivered: int
    """Number of deliveries of this message, this one included."""
    sequence: int
    """Sequence number in the stream."""
    stored_ms: int
    """When the stream stored it, by the clock of the NATS server (Unix ms)."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the message."""

    @property
    def settled(self) -> bool:
        """Whether an acknowledgement, positive or negative, was sent."""

    def ack(self) -> None:
        """Acknowledge the message: it is handled."""

    def nak(self, delay_s: float = 0.0) -> None:
        """Ask the server to deliver the message again after `delay_s`."""


Handle = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Handles a batch of messages. If it raises `StoreError`, the server delivers the batch again."""
