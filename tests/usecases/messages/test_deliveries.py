"""No message stops the others: outages, damaged keys, and bugs that one message finds."""

from collections import Counter
from collections.abc import Callable, Sequence

import orjson
from prometheus_client import CollectorRegistry

from router.domain.json import JsonObject
from router.errors import StoreDamaged, StoreUnavailable
from router.ports.bus import Delivery
from router.telemetry import Telemetry
from router.usecases.messages.deliveries import DeadLetters, FailureBudget, PoisonGuard
from tests.usecases.fakes.alerts import RecordedAlerts
from tests.usecases.fakes.bus import Message, RecordedPublisher


class Room:
    """A handler that acks all but what `wrong` says, the DLQ, and the alerts."""

    def __init__(self, wrong: Callable[[Delivery], Exception | None], failures: int = 3) -> None:
        self.wrong = wrong
        self.publisher = RecordedPublisher()
        self.away = 0
        dead_letters = DeadLetters(
            self.publisher,
            Telemetry(CollectorRegistry()),
            RecordedAlerts(),
            keep_payload=False,
            max_bytes=lambda: 1 << 20,
        )
        self.counts: Counter[tuple[str, int, bytes]] = Counter()
        self.uncounted = False
        self.handle, self.of_another_pod = (
            PoisonGuard(
                self._handle,
                "in",
                dead_letters,
                budget=FailureBudget(self, "in bug", failures),
                on_unavailable=self._away,
            )
            for _ in range(2)
        )

    @property
    def letters(self) -> list[JsonObject]:
        """What the DLQ has."""
        return [orjson.loads(publication.payload) for publication, _ in self.publisher.sent]

    async def count(self, cause: str, sequence: int, data: bytes) -> int:
        """`ports.tasks.DeliveryFailures`."""
        if self.uncounted:
            raise StoreUnavailable("away")
        self.counts[cause, sequence, data] += 1
        return self.counts[cause, sequence, data]

    async def _handle(self, batch: Sequence[Delivery]) -> None:
        for one in batch:
            fault = self.wrong(one)
            if fault is not None:
                raise fault
        for one in batch:
            one.ack()

    def _away(self) -> None:
        self.away += 1


async def test_a_message_that_finds_a_bug_does_not_stop_its_batch() -> None:
    """The others are acked, it comes again, and after its strikes it is a dead letter that names the fault."""
    room = Room(lambda d: TypeError("boom") if d.data == b"poison" else None, failures=3)
    for tries in (1, 2):
        poison = Message(2, b"poison", delivered=tries)
        batch = [Message(1), poison, Message(3)]
        await room.handle(batch)
        assert [m.said for m in batch] == [["ack"], [f"nak {tries}"], ["ack"]]
        assert room.letters == []
    last = Message(2, b"poison", delivered=3)
    await room.handle([last])
    assert last.said == ["ack"]
    assert room.letters[0]["reason"] == "it cannot be handled: TypeError"


async def test_an_outage_counts_for_nobody() -> None:
    """Everything comes again, 1, 2, then 4 s later, `away` is told, and no letter is written, however often."""
    room = Room(lambda _: StoreUnavailable("away"), failures=1)
    for tries, delay in ((1, 1), (2, 2), (3, 4), (9, 4)):
        batch = [Message(1, delivered=tries), Message(2, delivered=tries)]
        await room.handle(batch)
        assert [m.said for m in batch] == [[f"nak {delay}"]] * 2
    assert (room.away, room.letters) == (4, [])


async def test_a_damaged_key_is_the_fault_of_its_message_alone() -> None:
    """Its neighbours go on, and nobody holds the store to be away."""
    room = Room(lambda d: StoreDamaged("WRONGTYPE") if d.sequence == 1 else None, failures=2)
    batch = [Message(1), Message(2)]
    await room.handle(batch)
    assert [m.said for m in batch] == [["nak 1"], ["ack"]]
    assert room.away == 0


async def test_what_was_answered_before_the_fault_is_not_handled_again() -> None:
    """A second time would count and audit it as a duplicate."""
    handled: list[int] = []

    def wrong(delivery: Delivery) -> Exception | None:
        handled.append(delivery.sequence)
        delivery.ack()
        return TypeError() if delivery.sequence == 2 else None

    room = Room(wrong)
    await room.handle([Message(1), Message(2), Message(3)])
    assert handled == [1, 2, 3]


async def test_pods_count_together() -> None:
    """A message that fails in one pod and in another has failed twice; an uncounted failure is none."""
    room = Room(lambda _: TypeError("boom"), failures=3)
    for handle in (room.handle, room.of_another_pod):
        await handle([one := Message(1, b"poison")])
        assert one.said == ["nak 1"]
    room.uncounted = True
    await room.handle([Message(1, b"poison")])
    assert room.letters == []
    room.uncounted = False
    await room.of_another_pod([last := Message(1, b"poison")])
    assert last.said == ["ack"]
    assert len(room.letters) == 1
