"""Watches the streams of JetStream: which are missing, and which cover subjects of requests."""

import asyncio
from collections.abc import Callable

from router.bus.streams.specs import Ensured
from router.domain.alert import FLEET, Condition
from router.domain.degraded import Degradable
from router.edge.readiness import Readiness
from router.ports.alerts import AlertSink
from router.telemetry import Telemetry

# `usecases.tasks.push_gate` reports dispatch, because it also knows about refused publishes.
_FAULTS = 3  # failed checks in a row: about 7 s
_PARTS_WITH_STREAMS = (Degradable.ALERTS, Degradable.AUDIT_EXPORT)


class StreamWatch:
    """Watches the stream keeper. `fit` is set by the first check that finds nothing against serving requests.

    Before that, a missing stream that dispatch needs takes readiness, unless dispatch is `optional`. Afterwards it is
    only degraded. `on_missing` is called with the missing streams of dispatch and their reasons.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        readiness: Readiness,
        alerts: AlertSink,
        *,
        optional: bool = False,
        on_missing: Callable[[dict[str, str]], None] = lambda _missing: None,
    ) -> None:
        self._differences = telemetry.stream_differences
        self._readiness = readiness
        self._alerts = alerts
        self._optional = optional
        self._on_missing = on_missing
        self._faults = 0
        self.fit = asyncio.Event()

    def checked(self, ensured: Ensured, covered: dict[str, list[str]]) -> None:
        """Called after each complete check of the streams; `covered`: request/reply subject → covering streams."""
        self._differences.set(len(ensured.differences))
        self._faults = 0
        self._readiness.restore(Degradable.STREAM_CHECKS)
        missing: dict[str, str] = {}
        for stream in ensured.missing:
            if stream.part is Degradable.DISPATCH:
                missing.setdefault(stream.stream, stream.reason)
        self._on_missing(missing)
        for part in _PARTS_WITH_STREAMS:
            reasons = [stream.reason for stream in ensured.missing if stream.part is part]
            if reasons:
                self._readiness.degrade(part, reasons[0])
            else:
                self._readiness.restore(part)
        if covered:
            names = sorted({name for streams in covered.values() for name in streams})
            why = f"stream {', '.join(names)} covers {', '.join(covered)}: narrow it, or its acks reach callers first"
            self._readiness.not_ok("streams", reason=why)
            self._alerts.raise_(Condition.STREAM_COVERS_REQUESTS, FLEET, message=why, metadata={"streams": list(names)})
            return
        self._alerts.resolve(Condition.STREAM_COVERS_REQUESTS, FLEET)
        if missing and not self._optional and not self.fit.is_set():
            why, *others = missing.values()
            self._readiness.not_ok(
                "streams", reason=f"{why} ({len(others)} more streams are missing)" if others else why
            )
            return
        self._readiness.ok("streams")
        self.fit.set()

    def failed(self, reason: str, off: bool) -> None:
        """Called after a check that failed; `off`: there is no JetStream. Publishes notice later outages."""
        self._faults += 1
        if self.fit.is_set():
            if self._faults >= _FAULTS:
                self._readiness.degrade(Degradable.STREAM_CHECKS, reason)
            return
        if not (off and self._optional):
            self._readiness.not_ok("streams", reason=reason)
            return
        self._on_missing({"JetStream": reason})
        self._readiness.ok("streams")
        self.fit.set()
