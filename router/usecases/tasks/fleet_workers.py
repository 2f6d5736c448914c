"""Which workers there are, as far as their heartbeats tell; and what they gave up on."""

import logging
from collections import OrderedDict
from collections.abc import Callable

from router.domain.alert import Condition
from router.domain.result import WorkerState
from router.ports.alerts import AlertSink
from router.telemetry import Event, Telemetry
from router.wire.problems import Rejected
from router.wire.subjects import WORKER_DEAD_LETTER
from router.wire.workers import decode_heartbeat, decode_worker_dead_letter

log = logging.getLogger("router.workers")

SILENT_S = 60.0
_MAXIMUM = 10_000


class FleetWorkers:
    """Hears workers. `monotonic_s` is a clock; what was not heard for a minute is not there any more."""

    def __init__(self, telemetry: Telemetry, alerts: AlertSink, monotonic_s: Callable[[], float]) -> None:
        self._telemetry = telemetry
        self._alerts = alerts
        self._now = monotonic_s
        # Oldest first. Bounded: a name made up for every message must not fill the pod.
        self._heard: OrderedDict[str, float] = OrderedDict()

    def heartbeat(self, data: bytes, _headers: object) -> None:
        """A sign of life. Never raises."""
        beat = decode_heartbeat(data)
        if isinstance(beat, Rejected):
            self._telemetry.worker_heartbeats.labels("unreadable").inc()
            return
        self._telemetry.worker_heartbeats.labels(beat.status.value).inc()
        self._heard.pop(beat.worker_id, None)
        if beat.status is not WorkerState.STOPPED:
            self._heard[beat.worker_id] = self._now()
            if len(self._heard) > _MAXIMUM:
                self._heard.popitem(last=False)

    def dead_letter(self, data: bytes, _headers: object) -> None:
        """A worker could not use a message: counted, logged, alerted. Never raises."""
        letter = decode_worker_dead_letter(data)
        fields = (
            {"reason": "unreadable"}
            if isinstance(letter, Rejected)
            else {"reason": letter.reason, "payload_ref": letter.payload_ref or ""}
        )
        log.warning("a worker gave up on a message", extra={"event": Event.WORKER_DEAD_LETTER, **fields})
        self._telemetry.dead_letters.labels("worker").inc()
        self._alerts.happened(Condition.DEAD_LETTERS, WORKER_DEAD_LETTER)

    def tick(self) -> None:
        """Forget the silent ones, and tell how many there are."""
        silent_since = self._now() - SILENT_S
        while self._heard and next(iter(self._heard.values())) < silent_since:
            self._heard.popitem(last=False)
        self._telemetry.workers.set(len(self._heard))
