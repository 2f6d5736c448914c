"""A pod that misses results publishes a probe to their stream; whoever receives it acknowledges it."""

from collections.abc import Callable
from typing import Any

import pytest

from router.ports.bus import Published
from router.usecases.tasks.result_probe import EVERY_S, WITHIN_S, ResultProbe
from router.wire.subjects import RESULT_PROBE
from tests.usecases.fakes.bus import Message, RecordedPublisher
from tests.usecases.fakes.settling import Fate, World


class Room:
    """A probe with a clock of the test's own, ten seconds after the start."""

    def __init__(self, answer: Published = Published.STORED) -> None:
        self.now_s = 100.0
        self.received = 0
        self.refusing = False
        self.takes = True
        self.publisher = RecordedPublisher(answer)
        self.probe = ResultProbe(
            self.publisher,
            takes_probes=lambda: self.takes,
            refusing=lambda: self.refusing,
            received=lambda: self.received,
            pod="pod-1",
            now_s=lambda: self.now_s,
        )
        self.now_s += EVERY_S

    def ticks(self, seconds: int) -> int:
        """How many probes were published in this time."""
        before = len(self.publisher.sent)
        for _ in range(seconds):
            self.now_s += 1
            self.probe.tick()
        return len(self.publisher.sent) - before


def test_nothing_is_published_while_nothing_is_missed() -> None:
    """However long no result comes: there may be no tasks."""
    assert Room().ticks(100) == 0


def test_a_missed_result_is_one_probe_when_it_is_stored() -> None:
    """The stream works, so the worker was slow; the next miss is another probe."""
    room = Room()
    for _ in range(2):
        room.probe.missed()
        assert room.ticks(60) == 1
    (first, _), (second, _) = room.publisher.sent
    assert (first.subject, first.within_s) == (RESULT_PROBE, WITHIN_S)
    assert first.message_id != second.message_id


@pytest.mark.parametrize("answer", [Published.UNANSWERED, Published.REFUSED, Published.UNSENT])
def test_a_probe_that_is_not_stored_is_repeated(answer: Published) -> None:
    """Every ten seconds, so that the stream stays reported, and its recovery is noticed."""
    room = Room(answer)
    room.probe.missed()
    assert room.ticks(60) == 6


def test_a_refusing_stream_is_probed_until_it_stores() -> None:
    """Also where nothing is missed any more, because pushes are refused."""
    room = Room()
    room.refusing = True
    assert room.ticks(30) == 3
    room.refusing = False
    assert room.ticks(30) == 0


def test_results_that_arrive_are_proof_enough() -> None:
    """No probe within ten seconds of a message of the stream; then one tells."""
    room = Room()
    for _ in range(20):
        room.probe.missed()
        room.received += 1
        assert room.ticks(3) == 0
    assert room.ticks(60) == 1


def test_a_stream_without_the_subject_is_not_probed() -> None:
    """One of an older version: the message would be refused, and prove nothing."""
    room = Room()
    room.takes = False
    room.probe.missed()
    room.refusing = True
    assert room.ticks(60) == 0


async def test_a_probe_is_acknowledged_and_nothing_else(world: Callable[[], Any]) -> None:
    """No result is counted, refused or dead-lettered, whatever the probe holds; results beside it are settled."""
    here: World = await world()
    settle, _ = here.settle(Fate())
    room = Room()
    room.probe.missed()
    room.ticks(1)
    probes = [
        Message(1, room.publisher.sent[0][0].payload, subject=RESULT_PROBE),
        Message(2, b"", subject=RESULT_PROBE),
        Message(3, b"\xff" * 100_000, subject=RESULT_PROBE),
    ]
    await settle.settle_batch(probes)
    assert [m.said for m in probes] == [["ack"]] * 3
    assert await here.actions() == []
