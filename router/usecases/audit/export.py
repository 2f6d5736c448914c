"""Export of audit entries to sinks outside Redis before the log is trimmed: in order and at least once.

A mark in Redis holds the last exported entry. It moves only after every sink has stored the entries. If a pod dies
before that, the next export stores them again, with the same ids. If two pods export the same log, the mark's
compare-and-set lets only one of them move it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from router.chunks import chunks
from router.domain.audit.records import AuditEntry
from router.errors import ExportFailed
from router.ports.audit import AuditLog, AuditRetention, Sink
from router.ports.bus import Publication, Published, Publisher
from router.telemetry import Event, Telemetry
from router.wire.audit import audit_line

log = logging.getLogger("router.audit")

MAX_PER_RUN = 1_024
# Entries decoded or published without a pause: meanwhile this pod's decisions and assignments wait.
BATCH = 128


class AuditExport:
    """Exports one tenant's log at a time. `allowed`: the CP gate permits exports. `maximum`: entries per run."""

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
        """Whether a sink is configured and the CP gate permits exports."""
        return bool(self._sinks) and self._allowed()

    async def run(self, tenant_id: str) -> bool:
        """Export entries after the mark, at most `maximum`; return whether more wait.

        A failed sink is logged and counted, and the mark stays.

        :raises StoreError: Redis did not answer.
        """
        mark = await self._retention.exported(tenant_id)
        entries: list[AuditEntry] = []
        while (left := self._maximum - len(entries)) > 0:
            last = entries[-1].id if entries else mark
            batch = await self._audit.after(tenant_id, last=last, maximum=min(left, BATCH))
            entries += batch
            if len(batch) < min(left, BATCH):
                break
        if not entries:
            return False
        try:
            for sink in self._sinks:
                await sink.store(tenant_id, entries)
        except ExportFailed as fault:
            self._telemetry.audit_export_failures.inc()
            extra = {"event": Event.AUDIT_EXPORT_FAILED, "tenant_id": tenant_id}
            log.error("audit entries not exported, they wait: %s", fault, extra=extra)
            return False
        if not await self._retention.mark_exported(
            tenant_id, expected=mark, entry_id=entries[-1].id, count=len(entries)
        ):
            return False
        self._telemetry.audit_exported.inc(len(entries))
        return len(entries) == self._maximum


class StreamSink:
    """Sink into a JetStream stream, one message per entry.

    The message id names tenant and entry, so the stream drops copies within its dedup window.
    """

    def __init__(self, publisher: Publisher, subject: str) -> None:
        self._publisher = publisher
        self._subject = subject

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """See `ports.audit.Sink.store`."""
        for batch in chunks(entries, BATCH):
            stored = await asyncio.gather(*(self._publish(tenant_id, entry) for entry in batch))
            if not all(stored):
                raise ExportFailed(f"JetStream did not store {stored.count(False)} of {len(stored)} entries")

    def _publish(self, tenant_id: str, entry: AuditEntry) -> "asyncio.Future[bool]":
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(published: Published) -> None:
            if not stored.done():
                stored.set_result(bool(published))

        headers = {"tenant_id": tenant_id}
        publication = Publication(self._subject, audit_line(entry), f"audit:{tenant_id}:{entry.id}", headers)
        self._publisher.publish(publication, done)
        return stored
