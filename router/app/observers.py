"""What rooms report of themselves → metrics, logs and alerts."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TypedDict

from router.bus.stream_specs import Ensured
from router.domain.alert import FLEET, Condition
from router.domain.policy.model import TenantPolicies
from router.edge.readiness import Readiness
from router.log_throttle import LogThrottle
from router.ports.alerts import AlertSink
from router.ports.policies import Cause
from router.ports.seeding import SeedReport
from router.store.decide.lane import LaneHooks
from router.telemetry import Event, Telemetry
from router.usecases.admin.queries import RecentLatency
from router.usecases.alerts.alerts import Alerts
from router.usecases.alerts.rules import Level, Unavailable
from router.usecases.policies.cache import PolicyCache

log = logging.getLogger("router.app")


class StoreWatch:
    """Hears the lanes: the store is away while one of them is, or refuses every call (full, or a replica by now).

    `rule` is read once a second, once it is there. Append plain callbacks to the lists `on_away` (told each time one
    more node is away) and `on_back`.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._decide_seconds = telemetry.store_call_seconds.child("decide")
        self.on_away: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []
        self._lanes_down = 0
        self._fell: str | None = None
        self._refusing: dict[object, str] = {}
        self._throttle = LogThrottle(time.monotonic)
        self.rule: Unavailable | None = None

    def hooks(self) -> LaneHooks:
        """For the lanes."""
        t = self._telemetry
        return LaneHooks(self._called, t.store_timeouts.inc, self._down, t.store_late_rows.inc, self._refused)

    def _called(self, _script: str, seconds: float, rows: int) -> None:
        if rows:
            self._decide_seconds.observe(seconds)
            self._telemetry.batch_rows.observe(rows)

    def _down(self, down: bool, why: str) -> None:
        self._lanes_down += 1 if down else -1
        self._show()
        if down:
            self._telemetry.store_errors.inc()
            log.error("the store is away: %s", why, extra={"event": Event.STORE_AWAY})
            self._fell = why
            for heard in self.on_away:
                heard()
            return
        if self._lanes_down > 0:
            # One node of a Cluster is back, another is away still.
            return
        self._back("the store answers again")

    def _refused(self, lane: object, why: str | None) -> None:
        if why is None:
            del self._refusing[lane]
            self._show()
            if not self._refusing:
                self._throttle.over()
                self._back("the store takes calls again")
            return
        self._refusing[lane] = why
        self._show()
        self._telemetry.store_errors.inc()
        self._fell = why
        if (unsaid := self._throttle.due(why)) is not None:
            log.error("the store refuses calls: %s", why, extra={"event": Event.STORE_REFUSES, "unsaid": unsaid})

    def _back(self, said: str) -> None:
        log.info(said, extra={"event": Event.STORE_BACK})
        for heard in self.on_back:
            heard()

    def _show(self) -> None:
        self._telemetry.store_breaker_open.set(int(self._lanes_down > 0 or bool(self._refusing)))

    def tick(self) -> None:
        """Call once a second."""
        why = self._fell
        if self._lanes_down == 0:
            self._fell = next(iter(self._refusing.values()), None)
        if self.rule is not None:
            self.rule.read(why is not None, None if why is None else {"reason": why})


class StreamWatch:
    """Hears the keeper of the streams. `fit` is set once no stream covers a request/reply subject."""

    def __init__(self, telemetry: Telemetry, readiness: Readiness, alerts: AlertSink) -> None:
        self._differences = telemetry.stream_differences
        self._readiness = readiness
        self._alerts = alerts
        self.fit = asyncio.Event()

    def looked(self, ensured: Ensured, covered: dict[str, list[str]]) -> None:
        """After each complete look."""
        self._differences.set(len(ensured.differences))
        if not covered:
            self._readiness.ok("streams")
            self.fit.set()
            self._alerts.resolve(Condition.STREAM_COVERS_REQUESTS, FLEET)
            return
        names = sorted({name for streams in covered.values() for name in streams})
        why = f"stream {', '.join(names)} covers {', '.join(covered)}: narrow it, or its acks reach callers first"
        self._readiness.not_ok("streams", why)
        self._alerts.raise_(Condition.STREAM_COVERS_REQUESTS, FLEET, why, {"streams": list(names)})


class CacheWatch:
    """`usecases.policies.cache_settings.CacheHooks`; `suspect` is the guard's, set once it is there.

    `tenants` have a label of their own; `served` is told who is decided for.
    """

    def __init__(self, telemetry: Telemetry, tenants: Iterable[str], *, served: Callable[[str], None]) -> None:
        self._telemetry = telemetry
        self._revisions = {t: telemetry.policy_revision.labels(t) for t in tenants}
        self.suspect: Callable[[str], None] = _nobody
        self._served = served
        self._throttle = LogThrottle(time.monotonic)

    def loaded(self, cause: Cause, found: TenantPolicies | None) -> None:
        """A load succeeded: who has policies is decided for, and has an audit log."""
        self._telemetry.policy_reloads.labels(cause.value).inc()
        if found is not None:
            self._served(found.tenant_id)

    def failed(self, tenant_id: str, why: str) -> None:
        """A load failed; the last good policies are kept."""
        self._telemetry.policy_load_failures.inc()
        # Every tenant in use is asked for again and again while the store is away; the metric counts them all.
        if (unsaid := self._throttle.due(why)) is not None:
            fields = {"event": Event.POLICY_STALE, "tenant_id": tenant_id, "unsaid": unsaid}
            log.warning("policies could not be loaded: %s", why, extra=fields)

    def read(self, cache: PolicyCache) -> None:
        """What the gauges show is asked for when they are scraped."""
        t = self._telemetry
        t.policy_cache_entries.set_function(lambda: cache.tenants)
        t.policy_cache_bytes.set_function(lambda: cache.size_bytes)
        t.policy_skew.set_function(lambda: len(cache.skew))
        t.policy_skew_age.set_function(lambda: cache.skew.oldest_s)

    def kept(self, tenant_id: str, revision: int | None) -> None:
        """The tenant is cached at this revision, or not any more."""
        gauge = self._revisions.get(tenant_id)
        if gauge is not None:
            gauge.set(revision or 0)

    def head_missing(self, tenant_id: str) -> None:
        """The store may have lost its data."""
        self.suspect(tenant_id)


def _nobody(_tenant_id: str) -> None:
    """Before the guard is there."""


class AuditWatch:
    """Whether the audit is slow: over the last seconds, the calls that append to it, and this pod's reads of it."""

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
    """Over again at half of it; ten seconds each."""
    return {"raise_at": bound_ms, "clear_at": bound_ms / 2, "hold": 10}


class LevelBounds(TypedDict):
    """As `Level` calls them."""

    raise_at: float
    clear_at: float
    hold: int


class SeedWatch:
    """`usecases.policies.seed.SeedHooks`."""

    def __init__(self, telemetry: Telemetry, alerts: Alerts) -> None:
        self._telemetry = telemetry
        self._alerts = alerts

    def reseeded(self, report: SeedReport) -> None:
        """A store that had been seeded was found empty."""
        self._telemetry.store_reseeded.inc()
        log.error(
            "the store was found empty and was seeded again: %d policies",
            len(report.written),
            extra={"event": Event.STORE_RESEEDED},
        )
        self._alerts.happened(Condition.STORE_RESEEDED, FLEET, metadata={"policies": len(report.written)})
        self._bad(report)

    def seeded(self, report: SeedReport) -> None:
        """Files were read into the store."""
        log.info(
            "seeded %d policies, %d were there",
            len(report.written),
            len(report.kept),
            extra={"event": Event.POLICY_APPLIED},
        )
        self._bad(report)

    def away(self, why: str) -> None:
        """The guard tries again; the lanes say when the store is away."""
        log.debug("the seed waits for the store: %s", why)

    @staticmethod
    def _bad(report: SeedReport) -> None:
        for bad in report.bad:
            log.error("a policy file is refused: %s", bad, extra={"event": Event.POLICY_REFUSED})
