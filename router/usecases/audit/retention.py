"""Keep audit logs within their age, and say when a log is cut before its entries are old.

Any pod does it. Tenants that are decided for are put into a set by the pods that load their policies; the set says
whose log is to be looked at next, so no look walks over all tenants. A claim keeps the other pods away; a look that
happens twice does no harm.
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
# A look costs Redis some 30 µs, and the rate at which a log grows is known by looks only.
LOOK_MS, FULL_MS = 60_000, 30_000
EXPORTING_MS = 30_000
MAX_NOTICED = 10_000
# The export is behind when so much of the log waits for it.
BEHIND = 0.8
# Every log is looked at more often than this while an export is on.
LAG_WINDOW_S = 2 * EXPORTING_MS / 1000


class Export(Protocol):
    """Stores entries outside before they are cut."""

    @property
    def on(self) -> bool:
        """Whether it is wanted and allowed now."""

    async def run(self, tenant_id: str) -> bool:
        """Export what waits, with a bound; whether there is more.

        :raises StoreError: Redis did not answer.
        """


class Retention:
    """Looks every `every_s` seconds at the logs that are due, at most `MAXIMUM` a time."""

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
        """A tenant is decided for. Called often; never raises."""
        # More wait only while the store is away, and those come again with their next load.
        if len(self._noticed) < MAX_NOTICED:
            self._noticed.add(tenant_id)

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        while True:
            looked = 0
            if self._may_work():
                try:
                    looked = await self.poll()
                except StoreError as fault:
                    log.debug("audit logs are looked at later: %s", fault)
            if looked < MAXIMUM:
                await asyncio.sleep(self._every_s)

    async def poll(self) -> int:
        """Look at what is due; returns how many logs that were.

        :raises StoreError: Redis did not answer.
        """
        noticed = list(self._noticed)
        await self._retention.notice(noticed)
        self._noticed.difference_update(noticed)
        claimed = await self._retention.claim(CLAIM_MS, MAXIMUM)
        exporting = self._export.on
        for tenant_id in claimed:
            look_ms = EXPORTING_MS if exporting else LOOK_MS
            trimmed = await self._retention.trim(
                tenant_id, look_ms=look_ms, full_ms=min(look_ms, FULL_MS), keep_unread=exporting
            )
            if trimmed is None:
                continue
            self._tell(tenant_id, trimmed)
            if exporting and trimmed.unread and await self._export.run(tenant_id):
                await self._retention.due_now(tenant_id)
        self._telemetry.audit_export_lag.set(self._lag.worst())
        return len(claimed)

    def _tell(self, tenant_id: str, t: Trimmed) -> None:
        telemetry = self._telemetry
        telemetry.audit_appended.labels(telemetry.decisions.label(tenant_id)).inc(t.appended)
        telemetry.audit_cut.labels("age").inc(t.cut)
        telemetry.audit_cut.labels("length").inc(t.cut_inside_age)
        telemetry.audit_export_lost.inc(t.lost)
        self._lag.saw(t.unread / self._max_len)
        if t.cut_inside_age or t.at_bound:
            self._alerts.happened(
                Condition.AUDIT_CUT_INSIDE_AGE,
                tenant_id,
                metadata={"tenant_id": tenant_id, "entries": t.entries, "oldest_ms": t.oldest_ms},
            )
            if t.cut_inside_age:
                log.warning(
                    "an audit log was cut inside its age: %d entries",
                    t.cut_inside_age,
                    extra={"event": Event.AUDIT_CUT, "tenant_id": tenant_id},
                )
        if t.lost or t.unread >= BEHIND * self._max_len:
            self._alerts.happened(
                Condition.AUDIT_EXPORT_BEHIND,
                tenant_id,
                metadata={"tenant_id": tenant_id, "unread": t.unread, "lost": t.lost},
            )


class _Lag:
    """The largest lag of this window and the last: pods share the logs, so one that was behind may not come again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = clock() + LAG_WINDOW_S
        self._last = self._now = 0.0

    def saw(self, share: float) -> None:
        """One log's."""
        self._now = max(self._now, share)

    def worst(self) -> float:
        """Of what was seen lately."""
        now = self._clock()
        if now >= self._until:
            self._last, self._now = self._now, 0.0
            self._until = now + LAG_WINDOW_S
        return max(self._last, self._now)
