"""The bus in memory: what is delivered, what is published, and what a stream holds."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping

from router.errors import BusError
from router.ports.bus import Publication, Published, StoredMessage
from router.wire.subjects import RESULT

DEDUP_MS = 3_600_000
NOW_MS = 10 * DEDUP_MS


class Message:
    """A delivery that keeps what is said about it."""

    def __init__(self, sequence: int, data: bytes = b"", delivered: int = 1, subject: str = RESULT) -> None:
        self.sequence, self.data, self.delivered, self.subject = sequence, data, delivered, subject
        self.stored_ms = NOW_MS
        self.said: list[str] = []

    @property
    def headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def settled(self) -> bool:
        """Whether something was said."""
        return bool(self.said)

    def ack(self) -> None:
        """Done."""
        self.said.append("ack")

    def nak(self, delay_s: float = 0.0) -> None:
        """Again."""
        self.said.append(f"nak {delay_s:g}")


class UsageStream:
    """The stream, as far as the outbox looks into it: `ids` is what it holds; None: it cannot be read."""

    def __init__(self) -> None:
        self.ids: set[str] | None = set()
        self.looked = asyncio.Event()

    async def stored_ids(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Which of these it has."""
        assert since_ms < NOW_MS - DEDUP_MS
        self.looked.set()
        if self.ids is None:
            raise BusError("away")
        return self.ids.intersection(message_ids)

    def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[StoredMessage], None]:
        """Not of interest here, as the rest of the port."""
        raise NotImplementedError

    async def get(self, sequence: int) -> StoredMessage | None:
        """See above."""
        raise NotImplementedError

    async def delete(self, sequence: int) -> None:
        """See above."""
        raise NotImplementedError


class Line:
    """`ports.bus.Line`, never lost."""

    connection = 1

    async def flush(self) -> None:
        """At once."""


class RecordedPublisher:
    """`ports.bus.Publisher`. Each publish ends with `answer` at once; None: the test ends it, by `sent`."""

    def __init__(self, answer: Published | None = Published.STORED) -> None:
        self.answer = answer
        self.sent: list[tuple[Publication, Callable[[Published], None]]] = []

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        self.sent.append((publication, done))
        if self.answer is not None:
            done(self.answer)
