"""Usage leaves the outbox only after the stream has it, and what a dead pod left is published by another."""

import asyncio
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry

from router.domain.alert import Condition
from router.domain.ids import to_text
from router.domain.tasks.task import Final, Move, MoveOutcome, TaskRecord, Unreadable
from router.errors import StoreUnavailable
from router.ports.bus import Published
from router.ports.tasks import Claimed, OutboxEntry
from router.telemetry import Telemetry
from router.usecases.tasks.outbox import POLLS_UNTIL_ALERT, Outbox
from tests.usecases.fakes.alerts import RecordedAlerts
from tests.usecases.fakes.bus import DEDUP_MS, NOW_MS, RecordedPublisher, UsageStream

ID = bytes(range(16))
EVENT = b'{"timestamp":%d}' % NOW_MS
OLD = b'{"timestamp":%d}' % (NOW_MS - DEDUP_MS)


class Room:
    """The outbox, a store that holds `waiting`, a stream that acks when told, and the alerts."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, bytes] = {}
        self.away = False
        self.publisher = RecordedPublisher(None)
        self.sent = self.publisher.sent
        self.alerts = RecordedAlerts()
        self.stream = UsageStream()
        self.telemetry = Telemetry(CollectorRegistry())
        self.outbox = Outbox(
            self,
            self.publisher,
            self.stream,
            self.telemetry,
            self.alerts,
            dedup_ms=lambda: DEDUP_MS,
            now_ms=lambda _tenant: NOW_MS,
        )

    async def usage_is_waiting(self, usage_ids: Sequence[bytes]) -> list[bool]:
        """Which are there."""
        return [u in self.waiting for u in usage_ids]

    async def usage_left(self) -> int:
        """How much is there."""
        return len(self.waiting)

    async def usage_waiting(self, maximum: int) -> list[OutboxEntry]:
        """What is there."""
        return [OutboxEntry(k, v) for k, v in self.waiting.items()]

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """Cleared."""
        if self.away:
            raise StoreUnavailable("away")
        return sum(self.waiting.pop(u, None) is not None for u in usage_ids)

    async def records(self, task_ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        """Not of interest here, as the rest of the port."""
        raise NotImplementedError

    async def jobs(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """See above."""
        raise NotImplementedError

    async def move(self, moves: Sequence[Move], *, replicated: bool = True) -> list[MoveOutcome]:
        """See above."""
        raise NotImplementedError

    async def claim(self, lease_ms: int, *, maximum: int) -> Claimed:
        """See above."""
        raise NotImplementedError

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """See above."""
        raise NotImplementedError

    async def final_results(self, task_ids: Sequence[bytes]) -> list[Final | Unreadable | None]:
        """See above."""
        raise NotImplementedError

    async def postpone(self, task_ids: Sequence[bytes], due_ms: int) -> None:
        """See above."""
        raise NotImplementedError

    async def final_results_published(self, kept: Mapping[bytes, bytes], keep_ms: int) -> None:
        """See above."""
        raise NotImplementedError

    async def kept_final_results(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
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
    done(Published.STORED)
    await room.outbox.drained()
    assert not room.waiting


async def test_usage_that_the_stream_refused_stays_and_is_published_again() -> None:
    """By the second look that sees it."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    room.sent[0][1](Published.REFUSED)
    await room.outbox.poll()
    assert len(room.sent) == 1
    await room.outbox.poll()
    assert len(room.sent) == 2


async def test_usage_on_its_way_is_not_published_twice() -> None:
    """However often it is seen in the outbox."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    for _ in range(3):
        await room.outbox.poll()
    assert len(room.sent) == 1


async def test_a_store_that_is_away_at_the_clearing_costs_a_repeat_only() -> None:
    """It stays in the outbox and is published again with the same id, which the stream drops."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    room.away = True
    room.sent[0][1](Published.STORED)
    await asyncio.wait_for(room.outbox.drained(), 1)
    room.away = False
    for _ in range(2):
        await room.outbox.poll()
    assert [p.message_id for p, _ in room.sent] == [room.sent[0][0].message_id] * 2


async def test_an_outbox_that_does_not_drain_is_alerted_until_it_is_empty() -> None:
    """The same events look after look."""
    room = Room()
    room.waiting[ID] = EVENT
    for _ in range(POLLS_UNTIL_ALERT + 1):
        await room.outbox.poll()
    assert room.alerts.open == {Condition.USAGE_NOT_DRAINING}
    room.waiting.clear()
    await room.outbox.poll()
    assert room.alerts.open == set()


async def _two_looks(room: Room) -> None:
    """The second one takes what the first has seen; then the look-up is over."""
    room.waiting[ID] = OLD
    for _ in range(2):
        await room.outbox.poll()
    await asyncio.wait_for(room.stream.looked.wait(), 1)
    await asyncio.sleep(0)


async def test_an_old_entry_that_the_stream_has_is_cleared_and_not_published() -> None:
    """After the dedup window a repeat would be metered again; it is counted as the duplicate that it is."""
    room = Room()
    room.stream.ids = {to_text(ID)}
    await _two_looks(room)
    await asyncio.wait_for(room.outbox.drained(), 1)
    assert (room.sent, room.waiting) == ([], {})
    assert room.telemetry.registry.get_sample_value("router_usage_duplicate_total") == 1
    assert room.telemetry.registry.get_sample_value("router_usage_published_total") == 1


async def test_an_old_entry_that_the_stream_lacks_is_published() -> None:
    """Nothing is lost by looking first."""
    room = Room()
    await _two_looks(room)
    assert len(room.sent) == 1


async def test_an_old_entry_waits_while_the_stream_cannot_be_read() -> None:
    """Not published, not cleared."""
    room = Room()
    room.stream.ids = None
    await _two_looks(room)
    assert (room.sent, room.waiting) == ([], {ID: OLD})


async def test_a_duplicate_is_counted_as_its_own_outcome() -> None:
    """It clears the outbox as a stored one does."""
    room = Room()
    room.waiting[ID] = EVENT
    room.outbox.publish(ID, EVENT)
    room.sent[0][1](Published.DUPLICATE)
    await asyncio.wait_for(room.outbox.drained(), 1)
    assert not room.waiting
    assert room.telemetry.registry.get_sample_value("router_usage_duplicate_total") == 1


async def test_the_reconciliation_returns_to_zero() -> None:
    """Settled − published, as the store has it."""
    room = Room()
    room.waiting[ID] = EVENT
    await room.outbox.poll()
    assert room.telemetry.registry.get_sample_value("router_usage_reconciliation") == 1
    room.waiting.clear()
    await room.outbox.poll()
    assert room.telemetry.registry.get_sample_value("router_usage_reconciliation") == 0
