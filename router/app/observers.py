"""Observers: turn what store, streams, cache, audit and seed report into metrics, logs and alerts."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypedDict

from router.bus.streams.specs import Ensured
from router.domain.alert import FLEET, Condition
from router.domain.degraded import Degradable
from router.domain.json import JsonObject
from router.domain.policy.model import TenantPolicies
from router.edge.readiness import Readiness
from router.log_throttle import LogThrottle
from router.ports.alerts import AlertSink
from router.ports.policies import Cause
from router.ports.seeding import SeedReport
from router.store.decide.availability import LaneHooks
from router.telemetry import Event, Telemetry
from router.usecases.admin.backpressure import RecentLatency
from router.usecases.alerts.alerts import Alerts
from router.usecases.alerts.thresholds import Level, Unavailable
from router.usecases.policies.cache import PolicyCache

log = logging.getLogger("router.app")

# `usecases.tasks.push_gate` reports dispatch, because it also knows about refused publishes.
_FAULTS = 3  # failed checks in a row: about 7 s
_PARTS_WITH_STREAMS = (Degradable.ALERTS, Degradable.AUDIT_EXPORT)


class StoreWatch:
    """Watches the lanes. The store is unavailable while a lane is down or refuses every call (full, or now a replica).

    `rule` gets one reading a second once it is set, and `alerts` the steps of Redis' clock. Append callbacks to
    `on_away`, called each time one more node is unavailable, and to `on_back`, called when all answer again.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._decide_seconds = telemetry.store_call_seconds.child("decide")
        self.on_away: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []
        self._lanes_down = 0
        self._outage_reason: str | None = None
        self._refusing: dict[object, str] = {}
        self._throttle = LogThrottle(time.monotonic)
        self._unconfirmed_throttle = LogThrottle(time.monotonic)
        self.rule: Unavailable | None = None
        self.alerts: AlertSink | None = None

    def hooks(self) -> LaneHooks:
        """The callbacks for the lanes."""
        t = self._telemetry
        return LaneHooks(
            on_call=self._call_done,
            on_timeout=t.store_timeouts.inc,
            on_down=self._lane_changed,
            on_late=t.store_late_rows.inc,
            on_refused=self._lane_refuses,
            on_still_down=self._lane_stays_down,
            on_clock_step=self._clock_stepped,
            on_unconfirmed=self._unconfirmed,
        )

    def _unconfirmed(self, script: str) -> None:
        """Too few replicas have confirmed a call: count it, and log it once a minute for each script."""
        self._telemetry.store_unconfirmed.labels(script).inc()
        if (unsaid := self._unconfirmed_throttle.due(script)) is not None:
            fields = {"event": Event.STORE_UNCONFIRMED, "script": script, "unsaid": unsaid}
            log.error("fewer replicas than ROUTER_WAIT_REPLICAS confirmed a call in time", extra=fields)

    def _call_done(self, _script: str, seconds: float, rows: int) -> None:
        if rows:
            self._decide_seconds.observe(seconds)
            self._telemetry.batch_rows.observe(rows)

    def _lane_changed(self, down: bool, why: str) -> None:
        self._lanes_down += 1 if down else -1
        self._update_gauge()
        if down:
            self._telemetry.store_errors.inc()
            log.error("store unavailable: %s", why, extra={"event": Event.STORE_AWAY})
            self._outage_reason = why
            for callback in self.on_away:
                callback()
            return
        if self._lanes_down > 0:
            # Another node of the Cluster is still unavailable.
            return
        self._recovered("store available again")

    def _lane_stays_down(self, why: str) -> None:
        """Log a reason that differs from the first one: after a lost connection it is the cause, such as a wrong
        password.
        """
        if why == self._outage_reason:
            return
        self._outage_reason = why
        if (suppressed := self._throttle.due(why)) is not None:
            log.error("store still unavailable: %s", why, extra={"event": Event.STORE_AWAY, "unsaid": suppressed})

    def _lane_refuses(self, lane: object, why: str | None) -> None:
        if why is None:
            del self._refusing[lane]
            self._update_gauge()
            if not self._refusing:
                self._throttle.over()
                self._recovered("store accepts calls again")
            return
        self._refusing[lane] = why
        self._update_gauge()
        self._telemetry.store_errors.inc()
        self._outage_reason = why
        if (suppressed := self._throttle.due(why)) is not None:
            log.error("store refuses calls: %s", why, extra={"event": Event.STORE_REFUSES, "unsaid": suppressed})

    def _clock_stepped(self, ms: float) -> None:
        direction = "forward" if ms > 0 else "back"
        self._telemetry.store_clock_steps.labels(direction).inc()
        step: JsonObject = {"step_ms": round(ms), "direction": direction}
        message = f"Redis' clock went {direction} by {abs(ms) / 1000:,.1f} s"
        log.error(message, extra={"event": Event.STORE_CLOCK_STEPPED, **step})
        if self.alerts is not None:
            self.alerts.occurred(Condition.CLOCK_STEPPED, FLEET, message, step)

    def _recovered(self, message: str) -> None:
        log.info(message, extra={"event": Event.STORE_BACK})
        for callback in self.on_back:
            callback()

    def _update_gauge(self) -> None:
        self._telemetry.store_breaker_open.set(int(self._lanes_down > 0 or bool(self._refusing)))

    def tick(self) -> None:
        """Call once a second."""
        why = self._outage_reason
        if self._lanes_down == 0:
            self._outage_reason = next(iter(self._refusing.values()), None)
        if self.rule is not None:
            self.rule.read(why is not None, None if why is None else {"reason": why})


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
        for one in ensured.missing:
            if one.part is Degradable.DISPATCH:
                missing.setdefault(one.stream, one.reason)
        self._on_missing(missing)
        for part in _PARTS_WITH_STREAMS:
            reasons = [one.reason for one in ensured.missing if one.part is part]
            if reasons:
                self._readiness.degrade(part, reasons[0])
            else:
                self._readiness.restore(part)
        if covered:
            names = sorted({name for streams in covered.values() for name in streams})
            why = f"stream {', '.join(names)} covers {', '.join(covered)}: narrow it, or its acks reach callers first"
            self._readiness.not_ok("streams", why)
            self._alerts.raise_(Condition.STREAM_COVERS_REQUESTS, FLEET, why, {"streams": list(names)})
            return
        self._alerts.resolve(Condition.STREAM_COVERS_REQUESTS, FLEET)
        if missing and not self._optional and not self.fit.is_set():
            why, *others = missing.values()
            self._readiness.not_ok("streams", f"{why} ({len(others)} more streams are missing)" if others else why)
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
            self._readiness.not_ok("streams", reason)
            return
        self._on_missing({"JetStream": reason})
        self._readiness.ok("streams")
        self.fit.set()


class CacheWatch:
    """Watches the policy cache (`ports.policies.CacheHooks`).

    `suspect` is set to the seed guard's method once that exists. `served` is called with each tenant that this pod
    decides for.
    """

    def __init__(self, telemetry: Telemetry, *, served: Callable[[str], None]) -> None:
        self._telemetry = telemetry
        self.suspect: Callable[[str], None] = _no_guard_yet
        self._served = served
        self._throttle = LogThrottle(time.monotonic)

    def loaded(self, cause: Cause, policies: TenantPolicies | None) -> None:
        """A load succeeded. A tenant with policies gets decisions, and so has an audit log."""
        self._telemetry.policy_reloads.labels(cause.value).inc()
        if policies is not None:
            self._served(policies.tenant_id)

    def failed(self, tenant_id: str, why: str) -> None:
        """A load failed; the last good policies are kept."""
        self._telemetry.policy_load_failures.inc()
        # During an outage every tenant in use is retried: the log is throttled, the metric counts all.
        if (suppressed := self._throttle.due(why)) is not None:
            fields = {"event": Event.POLICY_STALE, "tenant_id": tenant_id, "unsaid": suppressed}
            log.warning("policies could not be loaded: %s", why, extra=fields)

    def read(self, cache: PolicyCache) -> None:
        """Let the gauges read their values from the cache at each scrape."""
        t = self._telemetry
        t.policy_cache_entries.set_function(lambda: cache.tenants)
        t.policy_cache_bytes.set_function(lambda: cache.size_bytes)
        t.policy_skew.set_function(lambda: len(cache.skew))
        t.policy_skew_age.set_function(lambda: cache.skew.oldest_s)

    def kept(self, tenant_id: str, revision: int | None) -> None:
        """The tenant is cached at this revision; None: it is no longer cached."""
        self._telemetry.policy_revision.set(tenant_id, revision or 0)

    def head_missing(self, tenant_id: str) -> None:
        """The store may have lost its data."""
        self.suspect(tenant_id)


def _no_guard_yet(_tenant_id: str) -> None:
    """Stands in until the seed guard exists."""


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


class SeedWatch:
    """Watches the seed (`ports.seeding.SeedHooks`)."""

    def __init__(self, telemetry: Telemetry, alerts: Alerts) -> None:
        self._telemetry = telemetry
        self._alerts = alerts

    def reseeded(self, report: SeedReport) -> None:
        """A store that had been seeded was found empty and was seeded again."""
        self._telemetry.store_reseeded.inc()
        log.error(
            "store found empty and seeded again: %d policies",
            len(report.written),
            extra={"event": Event.STORE_RESEEDED},
        )
        self._alerts.occurred(Condition.STORE_RESEEDED, FLEET, metadata={"policies": len(report.written)})
        self._log_bad_files(report)

    def seeded(self, report: SeedReport) -> None:
        """Policy files were written into the store."""
        log.info(
            "policies seeded: %d written, %d already there",
            len(report.written),
            len(report.kept),
            extra={"event": Event.POLICY_APPLIED},
        )
        self._log_bad_files(report)

    def store_unavailable(self, why: str) -> None:
        """The store did not answer; the guard retries. `StoreWatch` reports the outage."""
        log.debug("store unavailable; the seed check is retried: %s", why)

    @staticmethod
    def _log_bad_files(report: SeedReport) -> None:
        for bad in report.bad:
            log.error("policy file refused: %s", bad, extra={"event": Event.POLICY_REFUSED})
