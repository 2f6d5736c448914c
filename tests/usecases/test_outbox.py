"""Usage leaves the outbox only after the stream has it, and what a dead pod left is published by another."""

import asyncio
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from router.domain.alert import Condition
from router.domain.json import JsonObject
from router.domain.task import Move, MoveOutcome, TaskRecord, Unreadable
from router.errors import StoreUnavailable
from router.ports import Claimed, Publication, UsageWaiting
from router.telemetry import Telemetry
from router.usecases.outbox import LOOKS_UNTIL_ALERT, Outbox

ID, EVENT = bytes(range(16)), b"{}"


class Room:
    """The outbox, a store that holds `waiting`, a stream that acks when told, and the alerts."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, bytes] = {}
        self.away = False
        self.sent: list[tuple[Publication, Callable[[bool], None]]] = []
        self.raised: set[Condition] = set()
        self.outbox = Outbox(self, self, Telemetry(CollectorRegistry()), self)

    async def usage_waiting(self, most: int) -> list[UsageWaiting]:
        """What is there."""
        return [UsageWaiting(k, v) for k, v in self.waiting.items()]

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """Cleared."""
        if self.away:
            raise StoreUnavailable("away")
        return sum(self.waiting.pop(u, None) is not None for u in usage_ids)

    def publish(self, publication: Publication, done: Callable[[bool], None]) -> None:
        """On its way."""
        self.sent.append((publication, done))

    def raise_(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """`AlertSink`."""
        self.raised.add(condition)

    def resolve(self, condition: Condition, scope: str, message: str = "") -> None:
        """`AlertSink`."""
        self.raised.discard(condition)

    def happened(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """`AlertSink`."""
        self.raised.add(condition)

    async def records(self, task_ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        """Not of interest here, as the rest of the port."""
        raise NotImplementedError

    async def jobs(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """See above."""
        raise NotImplementedError

    async def move(self, moves: Sequence[Move]) -> list[MoveOutcome]:
        """See above."""
        raise NotImplementedError

    async def claim(self, lease_ms: int, most: int) -> Claimed:
        """See above."""
        raise NotImplementedError

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """See above."""
        raise NotImplementedError


async def test_usage_is_cleared_after_its_ack() -> None:
    """Not before; and under its usage_id as Msg-Id."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    ((publication, done),) = room.sent
    assert publication.message_id.replace("-", "") == ID.hex()
    await room.outbox.drained()
    assert room.waiting
    done(True)
    await room.outbox.drained()
    assert not room.waiting


async def test_usage_that_the_stream_refused_stays_and_is_published_again() -> None:
    """By the second look that sees it."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    room.sent[0][1](False)
    await room.outbox.look()
    assert len(room.sent) == 1
    await room.outbox.look()
    assert len(room.sent) == 2


async def test_usage_on_its_way_is_not_published_twice() -> None:
    """However often it is seen in the outbox."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    for _ in range(3):
        await room.outbox.look()
    assert len(room.sent) == 1


async def test_a_store_that_is_away_at_the_clearing_costs_a_repeat_only() -> None:
    """It stays in the outbox and is published again with the same id, which the stream drops."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    room.away = True
    room.sent[0][1](True)
    await asyncio.wait_for(room.outbox.drained(), 1)
    room.away = False
    for _ in range(2):
        await room.outbox.look()
    assert [p.message_id for p, _ in room.sent] == [room.sent[0][0].message_id] * 2


async def test_an_outbox_that_does_not_drain_is_alerted_until_it_is_empty() -> None:
    """The same events look after look."""
    room = Room()
    room.waiting[ID] = EVENT
    for _ in range(LOOKS_UNTIL_ALERT + 1):
        await room.outbox.look()
    assert room.raised == {Condition.USAGE_NOT_DRAINING}
    room.waiting.clear()
    await room.outbox.look()
    assert room.raised == set()
