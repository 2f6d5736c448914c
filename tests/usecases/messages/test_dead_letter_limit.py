"""Floods of unusable messages: bounded dead letters, evidence of each cause, and a number of the others."""

from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from router.domain.decide.decision import Code, Refused
from router.telemetry import Telemetry
from router.usecases.messages.dead_letter_limit import PER_CAUSE, PER_SUBJECT, WINDOW_S
from router.usecases.messages.deliveries import VIOLATION, DeadLetters
from tests.usecases.fakes.alerts import RecordedAlerts
from tests.usecases.fakes.bus import Message, RecordedPublisher


class Room:
    """The dead letters of one pod, on a clock set by hand."""

    def __init__(self) -> None:
        self.now, self.sequence = 0.0, 0
        self.publisher, self.telemetry = RecordedPublisher(), Telemetry(CollectorRegistry())
        self.letters_of = DeadLetters(
            self.publisher,
            self.telemetry,
            RecordedAlerts(),
            keep_payload=False,
            max_bytes=lambda: 1 << 20,
            clock=lambda: self.now,
        )
        self.messages: list[Message] = []

    def refuse(self, reason: str, subject: str = "in") -> None:
        """One message."""
        self.sequence += 1
        self.messages.append(Message(self.sequence, b"garbage"))
        refused = VIOLATION if reason == "violation" else Refused(Code.INVALID_REQUEST, reason)
        self.letters_of.refuse(subject, self.messages[-1], refused)

    @property
    def letters(self) -> list[dict[str, Any]]:
        """What the DLQ has."""
        return [orjson.loads(publication.payload) for publication, _ in self.publisher.sent]

    def summaries(self) -> list[dict[str, Any]]:
        """What the DLQ has of messages without a dead letter of their own."""
        return [x for x in self.letters if "left_out" in x["context"]]


@pytest.mark.parametrize("reason", ["not JSON", "violation", "status is missing", ""])
def test_one_cause_gets_a_few_letters_and_a_number(reason: str) -> None:
    """1,000 within a minute: each is acknowledged; the summary has their number and places."""
    room = Room()
    for _ in range(1_000):
        room.refuse(reason)
    assert len(room.letters) == PER_CAUSE
    assert all(m.said == ["ack"] for m in room.messages[PER_CAUSE:])
    room.letters_of.tick()
    assert len(room.letters) == PER_CAUSE
    room.now = WINDOW_S
    room.letters_of.tick()
    (summary,) = room.summaries()
    assert summary["context"] == {
        "left_out": 1_000 - PER_CAUSE,
        "first_stream_sequence": PER_CAUSE + 1,
        "last_stream_sequence": 1_000,
    }
    counted = room.telemetry.registry.get_sample_value("router_dead_letters_total", {"source": "left_out"})
    assert counted == 1_000 - PER_CAUSE


def test_a_rare_cause_is_seen_beside_a_flood() -> None:
    """A flood of one cause takes no letter of another one, nor of another subject."""
    room = Room()
    for _ in range(1_000):
        room.refuse("not JSON")
    room.refuse("status is missing")
    room.refuse("not JSON", "other")
    assert [x["reason"] for x in room.letters[PER_CAUSE:]] == ["status is missing", "not JSON"]


def test_reasons_that_an_outsider_makes_up_are_bounded() -> None:
    """3,000 different reasons: a bounded number of letters, of summaries, and of memory; none is uncounted."""
    room = Room()
    for n in range(3_000):
        room.refuse(f"field {n} is unknown")
    assert len(room.letters) == PER_SUBJECT
    room.letters_of.tick(last=True)
    assert len(room.summaries()) <= 65
    assert sum(x["context"]["left_out"] for x in room.summaries()) == 3_000 - PER_SUBJECT


def test_the_next_minute_begins_anew() -> None:
    """And what was said is not said again."""
    room = Room()
    for _ in range(2):
        for _ in range(100):
            room.refuse("not JSON")
        room.now += WINDOW_S
        room.letters_of.tick()
    assert [x["context"]["left_out"] for x in room.summaries()] == [100 - PER_CAUSE] * 2
    room.letters_of.tick(last=True)
    assert len(room.summaries()) == 2


def test_what_the_router_failed_on_is_never_left_out() -> None:
    """Each of these may be redriven when the fault is mended."""
    room = Room()
    for n in range(1_000):
        room.letters_of.give_up("in", Message(n, b"x"), Refused(Code.INTERNAL, "it cannot be handled"))
    assert len(room.letters) == 1_000
