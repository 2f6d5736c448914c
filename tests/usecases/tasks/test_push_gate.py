"""Pushes are refused while a stream is missing or stores nothing; other requests never come here."""

import pytest

from router.domain.alert import Condition
from router.domain.decide.decision import Code, Refused
from router.usecases.tasks.push_gate import ALERT_S, QUIET_S, PushGate
from tests.usecases.fakes.alerts import RecordedAlerts

OWN = {"caf.exec.assign.v1": "ASSIGN", "caf.exec.gpu": "ASSIGN", "caf.exec.result.v1": "RESULT"}


class Room:
    """A gate with a clock of the test's own."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.alerts = RecordedAlerts()
        self.switches: list[str | None] = []
        self.gate = PushGate(self.alerts, OWN.get, self.switches.append, lambda: self.now_s)

    def refused(self, subject: str | None = None) -> Refused | None:
        """The refusal of one push."""
        return self.gate.refusal(subject)


def test_nothing_is_refused_while_all_is_well() -> None:
    """The common case."""
    assert Room().refused() is None


def test_a_missing_stream_refuses_every_push_and_is_an_alert_at_once() -> None:
    """With its reason, without probes: nothing could store them. The end of one stream leaves the other."""
    room = Room()
    room.gate.missing({"RESULT": "stream RESULT cannot be created", "ASSIGN": "stream ASSIGN cannot be created"})
    for _ in range(3):
        room.now_s += 5
        refused = room.refused("caf.exec.elsewhere")
        assert refused is not None
        assert (refused.code, refused.details["retry_after_ms"]) == (Code.UNAVAILABLE, 1000)
        assert "stream RESULT cannot be created" in refused.message
    assert room.alerts.open == {Condition.STREAM_UNAVAILABLE}
    room.gate.missing({"ASSIGN": "stream ASSIGN cannot be created"})
    assert room.alerts.resolved == ["RESULT"]
    assert room.switches[-1] == "stream ASSIGN cannot be created"
    room.gate.missing({})
    assert room.refused() is None
    assert room.alerts.resolved == ["RESULT", "ASSIGN"]
    assert room.switches[-1] is None


def test_a_pod_that_receives_no_results_pushes_nothing() -> None:
    """No probe: the task would run, and its result would be late. A missing stream is the first reason."""
    room = Room()
    room.gate.unheard("results do not arrive: not permitted")
    for _ in range(3):
        room.now_s += 5
        refused = room.refused("caf.exec.elsewhere")
        assert refused is not None
        assert "results do not arrive" in refused.message
    room.gate.missing({"ASSIGN": "stream ASSIGN cannot be created"})
    assert room.switches[-1] == "stream ASSIGN cannot be created"
    room.gate.missing({})
    assert room.switches[-1] == "results do not arrive: not permitted"
    room.gate.unheard(None)
    assert room.refused() is None
    assert room.switches[-1:] == [None]


def test_a_stream_of_results_that_stores_nothing_stops_all_pushes() -> None:
    """Without probes by pushes: each would run and time out. The reason says what to do when nobody answers."""
    room = Room()
    room.gate.refusing("RESULT", words="no ack")
    for _ in range(5):
        room.now_s += 1
        for subject in (None, "caf.exec.gpu", "caf.exec.elsewhere"):
            refused = room.refused(subject)
            assert refused is not None
            assert (
                "stream RESULT does not store messages: no ack; if NATS logs a critical write error" in refused.message
            )
    assert room.switches[-1] == room.gate.reason("RESULT")
    room.gate.stored("RESULT")
    assert room.refused() is None
    assert room.switches[-1:] == [None]


def test_one_stream_for_work_and_results_is_probed_by_pushes() -> None:
    """Somebody else's stream over all subjects: one push a second goes through, as for any refusing stream."""
    alerts, now_s = RecordedAlerts(), [100.0]
    gate = PushGate(alerts, lambda _subject: "CAF", lambda _reason: None, lambda: now_s[0])
    gate.refusing("CAF", words="no space")
    admitted = 0
    for tenth in range(1, 31):
        now_s[0] = 100 + tenth / 10
        admitted += gate.refusal(None) is None
    assert admitted == 3


def test_the_reason_of_a_refusing_stream_is_kept_while_it_refuses() -> None:
    """For those who report a part of the pod as off."""
    room = Room()
    assert room.gate.reason("RESULT") is None
    room.gate.refusing("RESULT", words="no space")
    assert room.gate.reason("RESULT") == "stream RESULT does not store messages: no space"
    assert room.gate.reason("ASSIGN") is None
    room.gate.stored("RESULT")
    assert room.gate.reason("RESULT") is None


def test_a_refusing_stream_lets_one_push_a_second_through() -> None:
    """All subjects of the stream share the probe; the words of the server are in the refusal."""
    room = Room()
    room.gate.refusing("ASSIGN", words="maximum messages exceeded")
    admitted = 0
    for tenth in range(1, 51):
        room.now_s = 100 + tenth / 10
        refused = room.refused("caf.exec.gpu" if tenth % 2 else None)
        admitted += refused is None
        assert refused is None or "stream ASSIGN does not store messages: maximum messages exceeded" in refused.message
    assert admitted == 5


@pytest.mark.parametrize("subject", ["caf.exec.result.v1", "caf.exec.theirs"])
def test_other_streams_are_not_meant(subject: str) -> None:
    """Only pushes to the subjects of the refusing stream are refused."""
    room = Room()
    room.gate.refusing("ASSIGN", words="no ack")
    assert room.refused() is not None
    assert room.refused(subject) is None


def test_a_subject_outside_the_fleets_streams_is_its_own_key() -> None:
    """A foreign stream that is full refuses its subject, and dispatch of the fleet stays on."""
    room = Room()
    room.gate.refusing("caf.exec.theirs", words="maximum bytes exceeded")
    assert room.refused("caf.exec.theirs") is not None
    assert room.refused() is None
    assert room.switches == [None]


def test_the_first_stored_message_ends_it() -> None:
    """A probe or a message that waited."""
    room = Room()
    room.gate.refusing("ASSIGN", words="maximum messages exceeded")
    assert room.switches[-1] == "stream ASSIGN does not store messages: maximum messages exceeded"
    room.gate.stored("ASSIGN")
    assert room.refused() is None
    assert room.switches[-1] is None


def test_an_alert_comes_after_ten_seconds() -> None:
    """A short refusal is none; the alert ends with the first stored message."""
    room = Room()
    for second in range(int(ALERT_S) + 1):
        room.now_s = 100 + second
        room.gate.refusing("ASSIGN", words="no ack")
        room.gate.tick()
        assert (Condition.STREAM_UNAVAILABLE in room.alerts.open) == (second >= ALERT_S)
    room.gate.stored("ASSIGN")
    assert room.alerts.open == set()


def test_a_stream_of_which_nothing_is_heard_counts_as_working() -> None:
    """Nobody pushes any more: the state does not stay for ever."""
    room = Room()
    room.gate.refusing("ASSIGN", words="no ack")
    room.now_s += QUIET_S - 1
    room.gate.tick()
    assert len(room.switches) == 1
    room.now_s += 1
    room.gate.tick()
    assert room.switches[1:] == [None]
    assert room.alerts.open == set()


def test_the_gate_keeps_a_bounded_number_of_streams() -> None:
    """Callers choose subjects: the thousandth is not kept."""
    room = Room()
    for number in range(1000):
        room.gate.refusing(f"caf.exec.s{number}", words="no ack")
    assert room.refused("caf.exec.s0") is not None
    assert room.refused("caf.exec.s999") is None
