"""The workers that send heartbeats, and the dead letters that workers report."""

import logging
from collections import OrderedDict
from collections.abc import Callable

from router.domain.alert import Condition
from router.domain.tasks.result import WorkerState
from router.ports.alerts import AlertSink
from router.telemetry import Event, Telemetry
from router.usecases.messages.input_defects import InputDefects
from router.wire.problems import Rejected
from router.wire.subjects import WORKER_DEAD_LETTER
from router.wire.worker.heartbeats import decode_heartbeat, decode_worker_dead_letter

log = logging.getLogger("router.workers")

SILENT_S = 60.0
_MAX_WORKERS = 10_000
_PUBLISH_ERROR = "PUBLISH_ERROR"


class FleetWorkers:
    """Counts workers by their heartbeats. A worker without a heartbeat for `SILENT_S` seconds is forgotten.

    `monotonic_s` is a clock. `on_publish_error` is called when a worker reports that it could not publish.
    """

    def __init__(self, telemetry: Telemetry, alerts: AlertSink, monotonic_s: Callable[[], float]) -> None:
        self._telemetry = telemetry
        self._defects = InputDefects(telemetry, "worker message")
        self._alerts = alerts
        self._now = monotonic_s
        self.on_publish_error: Callable[[], None] = lambda: None
        # Time of the last heartbeat by worker id, oldest first. Bounded: a worker that sends a new id with every
        # heartbeat must not exhaust the pod's memory.
        self._last_beat_s: OrderedDict[str, float] = OrderedDict()

    def heartbeat(self, data: bytes, _headers: object) -> None:
        """Register a heartbeat. Never raises."""
        beat = decode_heartbeat(data)
        if isinstance(beat, Rejected):
            self._telemetry.worker_heartbeats.labels("unreadable").inc()
            return
        self._defects.count(beat.warnings)
        self._telemetry.worker_heartbeats.labels(beat.status.value).inc()
        self._last_beat_s.pop(beat.worker_id, None)
        if beat.status is not WorkerState.STOPPED:
            self._last_beat_s[beat.worker_id] = self._now()
            if len(self._last_beat_s) > _MAX_WORKERS:
                self._last_beat_s.popitem(last=False)

    def dead_letter(self, data: bytes, _headers: object) -> None:
        """Count, log and alert on a message that a worker could not handle. Never raises."""
        letter = decode_worker_dead_letter(data)
        if not isinstance(letter, Rejected):
            self._defects.count(letter.warnings)
            if letter.reason == _PUBLISH_ERROR:
                self.on_publish_error()
        fields = (
            {"reason": "unreadable"}
            if isinstance(letter, Rejected)
            else {"reason": letter.reason, "payload_ref": letter.payload_ref or ""}
        )
        log.warning("worker gave up on a message", extra={"event": Event.WORKER_DEAD_LETTER, **fields})
        self._telemetry.dead_letters.labels("worker").inc()
        self._alerts.occurred(Condition.DEAD_LETTERS, WORKER_DEAD_LETTER)

    def tick(self) -> None:
        """Forget silent workers and publish the number of the others as a metric."""
        silent_since = self._now() - SILENT_S
        while self._last_beat_s and next(iter(self._last_beat_s.values())) < silent_since:
            self._last_beat_s.popitem(last=False)
        self._telemetry.workers.set(len(self._last_beat_s))
