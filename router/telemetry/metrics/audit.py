"""Metrics of the audit log."""

from router.telemetry.families import Families
from router.telemetry.metrics.bounds import LONG
from router.telemetry.tally import OTHER


class AuditMetrics:
    """Counted by `usecases.audit`."""

    def _audit(self, families: Families) -> None:
        self.audit_appended = families.counter(
            "audit_appended",
            documentation="Audit entries written, from periodic checks of the logs.",
            labels=("tenant",),
        )
        self.audit_appended.labels(OTHER)
        self.audit_cut = families.counter(
            "audit_cut",
            documentation="Audit entries removed for their age, or earlier by the bound on length.",
            labels=("by",),
        )
        for by in ("age", "length"):
            self.audit_cut.labels(by)
        self.audit_exported = families.counter(
            "audit_exported", documentation="Audit entries that the export stored outside of Redis."
        )
        self.audit_export_failures = families.counter(
            "audit_export_failures", documentation="Exports that failed and are retried."
        )
        self.audit_export_lag = families.gauge(
            "audit_export_lag_share",
            documentation="Unexported entries of the log that is furthest behind, as a share of ROUTER_AUDIT_MAX_LEN, "
            "over the logs that this pod checked in the last 1 to 2 minutes. At 1, entries are lost unexported.",
        )
        self.audit_export_lost = families.counter(
            "audit_export_lost", documentation="Audit entries removed before the export read them."
        )
        self.audit_read_seconds = families.histogram(
            "audit_read_seconds", documentation="Duration of one bounded read of an audit log by this pod.", bounds=LONG
        ).child()
        self.audit_unknown = families.counter(
            "audit_unknown_tenants",
            documentation="Refusals for unknown tenants: recorded in the audit log of no tenant, or dropped.",
            labels=("outcome",),
        )
        for outcome in ("recorded", "dropped"):
            self.audit_unknown.labels(outcome)
        self.audit_unrecorded = families.counter(
            "audit_unrecorded",
            documentation="Refusals that the audit counts instead of recording each (ROUTER_QUOTA_AUDIT_RATE).",
        )
