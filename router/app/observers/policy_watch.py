"""Watches the policies: the loads of the cache, and the seeding of an empty store."""

import logging
import time
from collections.abc import Callable

from router.domain.alert import FLEET, Condition
from router.domain.policy.model import TenantPolicies
from router.log_throttle import LogThrottle
from router.ports.policies import Cause
from router.ports.seeding import SeedReport
from router.telemetry import Event, Telemetry
from router.usecases.alerts.alerts import Alerts
from router.usecases.policies.cache import PolicyCache

log = logging.getLogger("router.app")


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

    def cached(self, tenant_id: str, revision: int | None) -> None:
        """The tenant is cached at this revision; None: it is no longer cached."""
        self._telemetry.policy_revision.set(tenant_id, revision or 0)

    def head_missing(self, tenant_id: str) -> None:
        """The store may have lost its data."""
        self.suspect(tenant_id)


def _no_guard_yet(_tenant_id: str) -> None:
    """Stands in until the seed guard exists."""


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
