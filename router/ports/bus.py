"""What is said over the bus, and what its streams keep."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct


class Publication(Struct, frozen=True):
    """One message for JetStream. `message_id` becomes Nats-Msg-Id."""

    subject: str
    payload: bytes
    message_id: str
    headers: dict[str, str] = {}
    core_will_do: bool = False
    """Whether a subject without a stream is nothing to tell an operator of."""


class Published(IntEnum):
    """What came of a publish. False only when it is not known to be in the stream."""

    FAILED = 0
    """Refused, or not acked in time: it may be there all the same."""
    STORED = 1
    DUPLICATE = 2
    """The stream had a message of this id already, within its dedup window; it holds that one."""


class Publisher(Protocol):
    """Publishes into streams."""

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """Queue a publish; `done(outcome)` is called exactly once, from the event loop. Never raises."""


class Line(Protocol):
    """The connection to NATS, for whoever must know that something went over it."""

    @property
    def connection(self) -> int:
        """Its number: another one after each reconnect."""

    async def flush(self) -> None:
        """Return when the server has read all that was sent before.

        :raises BusError: not connected, or no answer in time.
        """


class Kept(Struct, frozen=True):
    """One message of a stream; `at_ms` is when the server stored it. Without its data when only headers were read."""

    sequence: int
    subject: str
    at_ms: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def message_id(self) -> str:
        """Its Nats-Msg-Id; empty: it had none."""
        return self.headers.get("Nats-Msg-Id", "")


class History(Protocol):
    """A stream, for looking into. Every method raises `BusError` when it could not be read."""

    def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[Kept], None]:
        """Batches, oldest first, of what was stored from `since_ms` (Unix time) on, up to the moment of the call."""

    async def holds(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Which of these message ids were stored at `since_ms` (Unix time) or later."""

    async def get(self, sequence: int) -> Kept | None:
        """One message; None: it is not there (any more)."""

    async def delete(self, sequence: int) -> None:
        """Take one message out of the stream."""


class Delivery(Protocol):
    """A message of a stream that was handed to us."""

    data: bytes
    delivered: int
    sequence: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    @property
    def settled(self) -> bool:
        """Whether something final was said about it."""

    def ack(self) -> None:
        """Done with it."""

    def nak(self, delay_s: float = 0.0) -> None:
        """Again, later."""


Handle = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Handles a batch; may raise `StoreError`, and the batch comes again."""
