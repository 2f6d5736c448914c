"""The audit parts of a pod beside the decide call: deferred records, retention and export."""

from router.app.observers.audit_watch import AuditWatch
from router.app.platform import Platform
from router.edge.audit_files import FileSink
from router.ports.audit import Sink
from router.settings import Settings
from router.usecases.audit.deferred import DeferredAudit
from router.usecases.audit.export import AuditExport, StreamSink
from router.usecases.audit.retention import Retention
from router.usecases.audit.unknown_tenants import UnknownTenants
from router.usecases.audit.unrecorded_refusals import UnrecordedRefusals


class AuditParts:
    """Builds the audit parts."""

    def __init__(self, platform: Platform) -> None:
        s, t, store = platform.settings, platform.telemetry, platform.store
        self.deferred = DeferredAudit(store.tasks, t)
        platform.store_watch.on_back.append(self.deferred.store_is_back)
        self.unrecorded = UnrecordedRefusals(store.tasks, t)
        self.unknown = UnknownTenants(store.unknown, t)
        self.watch = AuditWatch(
            t, platform.alerts, append_slow_ms=s.audit_append_slow_ms, read_slow_ms=s.audit_read_slow_ms
        )
        self.retention = Retention(
            store.retention,
            t,
            platform.alerts,
            max_len=s.audit_max_len,
            export=AuditExport(
                store.audit, store.retention, _sinks(s, platform), t, allowed=lambda: platform.gate.is_open
            ),
            may_work=platform.may_work,
        )

    async def drained(self) -> None:
        """Write all waiting records, as far as the store accepts them."""
        await self.deferred.drained()
        await self.unknown.flush()
        await self.unrecorded.flush()


def _sinks(s: Settings, platform: Platform) -> list[Sink]:
    sinks: list[Sink] = []
    if s.audit_export_subject is not None:
        sinks.append(StreamSink(platform.publisher, s.audit_export_subject))
    if s.audit_export_dir is not None:
        sinks.append(FileSink(s.audit_export_dir))
    return sinks
