"""Store audit entries outside before they are cut: at least once, in order, from where the last export ended.

The mark in Redis moves only after every sink has the entries. A pod that dies in between leaves copies, which have the
same ids; two pods at the same log are told apart by the mark's compare-and-set.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from router.domain.audit import AuditEntry
from router.errors import ExportFailed
from router.ports.audit import AuditLog, AuditRetention, Sink
from router.ports.bus import Publication, Published, Publisher
from router.telemetry import Event, Telemetry
from router.wire.audit import audit_line

log = logging.getLogger("router.audit")

MAX_PER_RUN = 1_024
# Entries that are decoded, or published, in one go: decisions and assignments of this pod wait meanwhile.
BATCH = 128


class AuditExport:
    """Exports one tenant's log at a time. `allowed`: the CP gate lets it."""

    def __init__(
        self,
        audit: AuditLog,
        retention: AuditRetention,
        sinks: Sequence[Sink],
        telemetry: Telemetry,
        *,
        allowed: Callable[[], bool],
        maximum: int = MAX_PER_RUN,
    ) -> None:
        self._audit = audit
        self._retention = retention
        self._sinks = sinks
        self._telemetry = telemetry
        self._allowed = allowed
        self._maximum = maximum

    @property
    def on(self) -> bool:
        """Whether it is wanted and allowed now."""
        return bool(self._sinks) and self._allowed()

    async def run(self, tenant_id: str) -> bool:
        """Export what waits, at most `maximum` entries; whether there is more. A sink that fails is logged and counted.

        :raises StoreError: Redis did not answer.
        """
        mark = await self._retention.exported(tenant_id)
        entries: list[AuditEntry] = []
        while (left := self._maximum - len(entries)) > 0:
            last = entries[-1].id if entries else mark
            some = await self._audit.after(tenant_id, last, maximum=min(left, BATCH))
            entries += some
            if len(some) < min(left, BATCH):
                break
        if not entries:
            return False
        try:
            for sink in self._sinks:
                await sink.store(tenant_id, entries)
        except ExportFailed as fault:
            self._telemetry.audit_export_failures.inc()
            extra = {"event": Event.AUDIT_EXPORT_FAILED, "tenant_id": tenant_id}
            log.error("audit entries were not exported, they wait: %s", fault, extra=extra)
            return False
        if not await self._retention.mark_exported(tenant_id, mark, entries[-1].id, len(entries)):
            return False
        self._telemetry.audit_exported.inc(len(entries))
        return len(entries) == self._maximum


class StreamSink:
    """Into JetStream, one message an entry; the message id lets the stream drop the copies within its dedup window."""

    def __init__(self, publisher: Publisher, subject: str) -> None:
        self._publisher = publisher
        self._subject = subject

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """See `Sink.store`."""
        for at in range(0, len(entries), BATCH):
            some = entries[at : at + BATCH]
            stored = await asyncio.gather(*(self._publish(tenant_id, entry) for entry in some))
            if not all(stored):
                raise ExportFailed(f"JetStream did not take {stored.count(False)} of {len(stored)}")

    def _publish(self, tenant_id: str, entry: AuditEntry) -> "asyncio.Future[bool]":
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(published: Published) -> None:
            if not told.done():
                told.set_result(published is not Published.FAILED)

        headers = {"tenant_id": tenant_id}
        publication = Publication(self._subject, audit_line(entry), f"audit:{tenant_id}:{entry.id}", headers)
        self._publisher.publish(publication, done)
        return told
