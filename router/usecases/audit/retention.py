"""Retention of audit logs: trims them by age, starts their export, and reports logs that lose entries too early.

    tenant served → noted in a schedule in Redis → due → claimed by one pod → trimmed, exported → due again later

Every pod takes part. The schedule orders tenants by the time when their log is due, so no pod scans all tenants. A
claim hides a tenant from the other pods for `CLAIM_MS`; a log that is handled twice takes no harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from router.domain.alert import Condition
from router.errors import StoreError
from router.ports.alerts import AlertSink
from router.ports.audit import AuditRetention, Trimmed
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.audit")

CLAIM_MS = 30_000
MAXIMUM = 64
# Intervals between checks of a log, and of a log at its length bound. A check costs Redis some 30 µs; only checks show
# how fast a log grows.
CHECK_MS, FULL_MS = 60_000, 30_000
# The interval while an export is on.
EXPORTING_MS = 30_000
MAX_NOTICED = 10_000
# The export is behind when this share of the log's bound is not exported.
BEHIND = 0.8
# While an export is on, every log is checked at least once per window.
LAG_WINDOW_S = 2 * EXPORTING_MS / 1000


class Export(Protocol):
    """Export of audit entries before they are trimmed."""

    @property
    def on(self) -> bool:
        """Whether entries are exported now: a sink is configured and the CP gate permits it."""

    async def run(self, tenant_id: str) -> bool:
        """Export a bounded number of waiting entries; return whether more wait.

        :raises StoreError: Redis did not answer.
        """


class Retention:
    """Checks the logs that are due every `every_s` seconds, at most `MAXIMUM` at a time."""

    def __init__(
        self,
        retention: AuditRetention,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        max_len: int,
        export: Export,
        may_work: Callable[[], bool],
        every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retention = retention
        self._telemetry = telemetry
        self._alerts = alerts
        self._max_len = max_len
        self._export = export
        self._may_work = may_work
        self._every_s = every_s
        self._noticed: set[str] = set()
        self._lag = _Lag(clock)

    def served(self, tenant_id: str) -> None:
        """Note that a tenant is in use, so that its log is scheduled. Called often; never raises."""
        # The bound is reached only while the store is unavailable. Later tenants are noted at their next policy load.
        if len(self._noticed) < MAX_NOTICED:
            self._noticed.add(tenant_id)

    async def run(self) -> None:
        """Poll forever; cancel to stop."""
        while True:
            checked = 0
            if self._may_work():
                try:
                    checked = await self.poll()
                except StoreError as fault:
                    log.debug("audit logs not checked: %s", fault)
            if checked < MAXIMUM:
                await asyncio.sleep(self._every_s)

    async def poll(self) -> int:
        """Trim and export the logs that are due; return their number.

        :raises StoreError: Redis did not answer.
        """
        noticed = list(self._noticed)
        await self._retention.register(noticed)
        self._noticed.difference_update(noticed)
        claimed = await self._retention.claim(CLAIM_MS, maximum=MAXIMUM)
        exporting = self._export.on
        for tenant_id in claimed:
            check_ms = EXPORTING_MS if exporting else CHECK_MS
            trimmed = await self._retention.trim(
                tenant_id, check_ms=check_ms, full_ms=min(check_ms, FULL_MS), keep_unread=exporting
            )
            if trimmed is None:
                continue
            self._report(tenant_id, trimmed)
            if exporting and trimmed.unread and await self._export.run(tenant_id):
                await self._retention.due_now(tenant_id)
        self._telemetry.audit_export_lag.set(self._lag.worst())
        return len(claimed)

    def _report(self, tenant_id: str, trimmed: Trimmed) -> None:
        """Count, log and alert on the state of one log."""
        telemetry = self._telemetry
        telemetry.audit_appended.labels(telemetry.decisions.label(tenant_id)).inc(trimmed.appended)
        telemetry.audit_cut.labels("age").inc(trimmed.cut)
        telemetry.audit_cut.labels("length").inc(trimmed.cut_inside_age)
        telemetry.audit_export_lost.inc(trimmed.lost)
        self._lag.add(trimmed.unread / self._max_len)
        if trimmed.cut_inside_age or trimmed.at_bound:
            self._alerts.occurred(
                Condition.AUDIT_CUT_INSIDE_AGE,
                tenant_id,
                metadata={"tenant_id": tenant_id, "entries": trimmed.entries, "oldest_ms": trimmed.oldest_ms},
            )
            if trimmed.cut_inside_age:
                log.warning(
                    "audit log trimmed by length before the retention age: %d entries",
                    trimmed.cut_inside_age,
                    extra={"event": Event.AUDIT_CUT, "tenant_id": tenant_id},
                )
        if trimmed.lost or trimmed.unread >= BEHIND * self._max_len:
            self._alerts.occurred(
                Condition.AUDIT_EXPORT_BEHIND,
                tenant_id,
                metadata={"tenant_id": tenant_id, "unread": trimmed.unread, "lost": trimmed.lost},
            )


class _Lag:
    """The largest export lag of the current and the last window, as a share of a log's bound.

    Two windows, because pods share the logs: the log that was behind may be checked by another pod next time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + LAG_WINDOW_S
        self._last = self._now = 0.0

    def add(self, share: float) -> None:
        """Add the lag of one log."""
        self._now = max(self._now, share)

    def worst(self) -> float:
        """The largest lag of the two windows."""
        now = self._clock()
        if now >= self._until:
            self._last, self._now = self._now, 0.0
            self._until = now + LAG_WINDOW_S
        return max(self._last, self._now)
