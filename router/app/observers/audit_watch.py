"""Watches for a slow audit."""

from typing import TypedDict

from router.domain.alert import FLEET, Condition
from router.ports.alerts import AlertSink
from router.telemetry import Telemetry
from router.usecases.admin.backpressure import RecentLatency
from router.usecases.alerts.thresholds import Level


class AuditWatch:
    """Watches for a slow audit: the recent latency of the calls that append to it, and of this pod's reads."""

    def __init__(self, telemetry: Telemetry, alerts: AlertSink, *, append_slow_ms: int, read_slow_ms: int) -> None:
        append, read = telemetry.store_call_seconds.child("decide"), telemetry.audit_read_seconds
        self._watched = [
            (RecentLatency(counted.counts, counted.bounds_ms), Level(alerts, condition, FLEET, **bounds))
            for counted, condition, bounds in (
                (append, Condition.AUDIT_APPEND_SLOW, _slow(append_slow_ms)),
                (read, Condition.AUDIT_READ_SLOW, _slow(read_slow_ms)),
            )
        ]

    def tick(self) -> None:
        """Call once a second."""
        for recent, level in self._watched:
            recent.tick()
            level.read(recent.p95_ms())


def _slow(bound_ms: int) -> "LevelBounds":
    """Raise after 10 s above the bound; resolve after 10 s below half of it."""
    return {"raise_at": bound_ms, "clear_at": bound_ms / 2, "hold": 10}


class LevelBounds(TypedDict):
    """The keyword arguments of `usecases.alerts.thresholds.Level`."""

    raise_at: float
    clear_at: float
    hold: int
