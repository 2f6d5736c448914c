"""Publishing to NATS, reading its streams, and the messages it delivers."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct


class Publication(Struct, frozen=True):
    """One message for JetStream. `message_id` becomes the header Nats-Msg-Id."""

    subject: str
    payload: bytes
    message_id: str
    headers: dict[str, str] = {}
    core_will_do: bool = False
    """Whether a subject without a stream needs no log line for operators."""


class Published(IntEnum):
    """The outcome of a publish. False only when the message is not known to be in the stream."""

    FAILED = 0
    """Refused, or not acknowledged in time: the message may be stored all the same."""
    STORED = 1
    DUPLICATE = 2
    """The stream already had a message with this id within its dedup window; it keeps that one."""


class Publisher(Protocol):
    """Publishes into streams."""

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """Queue a publish. `done(outcome)` is called exactly once, from the event loop. Never raises."""


class Line(Protocol):
    """The connection to NATS, for callers that must know that the server has read their messages."""

    @property
    def connection(self) -> int:
        """The number of the connection; each reconnect increases it."""

    async def flush(self) -> None:
        """Return when the server has read everything sent before.

        :raises BusError: not connected, or no answer in time.
        """


class Kept(Struct, frozen=True):
    """One message of a stream. `at_ms` is when the server stored it. `data` is empty when only headers were read."""

    sequence: int
    subject: str
    at_ms: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def message_id(self) -> str:
        """The header Nats-Msg-Id; empty without one."""
        return self.headers.get("Nats-Msg-Id", "")


class History(Protocol):
    """A stream, for reading back. Every method raises `BusError` when the stream could not be read."""

    def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[Kept], None]:
        """Batches of messages stored since `since_ms` (Unix time), oldest first, up to the moment of the call."""

    async def holds(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Which of these message ids were stored at `since_ms` (Unix time) or later."""

    async def get(self, sequence: int) -> Kept | None:
        """One message; None: it is not in the stream any more."""

    async def delete(self, sequence: int) -> None:
        """Delete one message from the stream."""


class Delivery(Protocol):
    """A delivered message of a stream."""

    data: bytes
    delivered: int
    sequence: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    @property
    def settled(self) -> bool:
        """Whether the message was acknowledged for good."""

    def ack(self) -> None:
        """Acknowledge: the message is handled."""

    def nak(self, delay_s: float = 0.0) -> None:
        """Again, later."""


Handle = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Handles a batch. It may raise `StoreError`; then the batch is delivered again."""
