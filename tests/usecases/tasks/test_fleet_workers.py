"""Workers that are heard of: counted while they live, and their dead letters alerted."""

import orjson
from prometheus_client import CollectorRegistry

from router.domain.alert import Condition
from router.telemetry import Telemetry
from router.usecases.tasks.fleet_workers import SILENT_S, FleetWorkers
from tests.usecases.fakes.alerts import RecordedAlerts


class Room:
    """A pod's ear with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alerts = RecordedAlerts()
        self.telemetry = Telemetry(CollectorRegistry())
        self.workers = FleetWorkers(self.telemetry, self.alerts, lambda: self.now)

    def beat(self, worker: str, status: str = "idle") -> None:
        """A heartbeat."""
        data = {"worker_id": worker, "timestamp": "2026-01-01T00:00:00Z", "status": status, "load": 0.5}
        self.workers.heartbeat(orjson.dumps({"version": "v1", "kind": "heartbeat", "data": data}), {})

    def value(self, name: str, **labels: str) -> float | None:
        """A metric."""
        self.workers.tick()
        return self.telemetry.registry.get_sample_value(name, labels)


def test_workers_are_counted_while_they_beat() -> None:
    """Each once; a silent one is gone after a minute, one that stops at once."""
    room = Room()
    for worker in ("a", "b", "a", "c"):
        room.beat(worker)
    assert room.value("router_workers") == 3
    room.beat("c", "stopped")
    assert room.value("router_workers") == 2
    room.now += SILENT_S / 2
    room.beat("b", "busy")
    room.now += SILENT_S / 2 + 1
    assert room.value("router_workers") == 1


def test_names_without_end_do_not_fill_the_pod() -> None:
    """The oldest are forgotten."""
    room = Room()
    for number in range(10_050):
        room.beat(f"w{number}")
    assert room.value("router_workers") == 10_000


def test_garbage_is_counted_and_harms_nobody() -> None:
    """As heartbeat and as dead letter."""
    room = Room()
    room.workers.heartbeat(b"\xff", {})
    room.workers.dead_letter(b"{", {})
    assert room.value("router_worker_heartbeats_total", status="unreadable") == 1
    assert room.value("router_dead_letters_total", source="worker") == 1


def test_a_workers_dead_letter_is_an_alert() -> None:
    """With the subject as its scope."""
    room = Room()
    data = {"reason": "PARSE_ERROR", "payload_ref": "ASSIGN:7", "ts": 1}
    room.workers.dead_letter(orjson.dumps({"version": "v1", "kind": "dead_letter", "data": data}), {})
    assert room.alerts.events == [(Condition.DEAD_LETTERS, "caf.deadletter.v1")]


def test_defects_of_a_workers_messages_are_counted() -> None:
    """A status in capitals, a byte order mark, half a character: the worker lives, its dead letter is an alert."""
    room = Room()
    room.beat("a", "Busy")
    beat = {"worker_id": "b", "status": "idle"}
    room.workers.heartbeat(b"\xef\xbb\xbf" + orjson.dumps(beat), {})
    room.workers.dead_letter(b'{"reason":"PARSE_ERROR","payload_ref":"cut \\ud83d"}', {})
    assert room.value("router_workers") == 2
    assert len(room.alerts.events) == 1
    for defect in ("other_form", "byte_order_mark", "half_character"):
        assert room.value("router_input_defects_total", message="worker message", defect=defect) == 1
