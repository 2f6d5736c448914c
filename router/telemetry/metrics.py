"""Every metric of a pod. Label sets are closed: each value comes from an enum, a constant or the settings.

Series used by alerting rules are created at start-up with every label value, since `increase()` misses the first event
of a series that begins at 1. Totals that a component keeps itself are read from it at a scrape
(`redeliveries.read_from(lambda: loop.redelivered, "result")`).
"""

from collections.abc import Iterable, Mapping
from itertools import product

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest

from router.domain.admission import Shed
from router.domain.alert import ALERTS, Door
from router.domain.decision import PinState
from router.domain.degraded import Degradable
from router.domain.gate import Fault
from router.domain.policy.model import Resource, Scope
from router.domain.reply_refusal import ReplyRefusal
from router.domain.task import BreakerTurn
from router.telemetry.families import Families, MetricRow
from router.telemetry.tally import OTHER, Buckets, Decisions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
# For durations of seconds: answers that wait for extensions.
_LONG = (*_LATENCY, 2.0, 3.0, 4.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BREAKER_STATES = ("open", "half_open", "forced")
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


BACKPRESSURE = MetricRow(
    "router_intake_backpressure_active", "gauge", (), "1 while callers should slow down; always the first line."
)


class Telemetry:
    """The metrics of one pod, in the given registry; `rows` describes them all.

    `tenants` are the tenants with a label of their own, `store_kinds` the kinds of Redis keys.
    """

    def __init__(
        self, registry: CollectorRegistry, tenants: Iterable[str] = (), store_kinds: Iterable[str] = ()
    ) -> None:
        self.registry = registry
        families = Families(registry, BACKPRESSURE)
        self.rows = families.rows
        self.store_kinds = tuple(store_kinds)
        self._decide(families, tenants)
        self._extensions(families)
        self._store(families)
        self._audit(families)
        self._policies_and_gate(families, tenants)
        self._tasks(families)
        self._bus(families)
        self._pod(families)

    def _decide(self, families: Families, tenants: Iterable[str]) -> None:
        latency = families.histogram(
            "decision_seconds", "Time from the request's arrival to its answer.", _LONG
        ).child()
        self.latency = latency
        self.extended_latency = Buckets(_LONG)
        """The part of `latency` that requests with extensions are; no family of its own."""
        self.decisions = Decisions(tenants, latency)
        families.own(self.decisions, Decisions.NAME, Decisions.DOCUMENTATION, Decisions.LABELS)
        self.in_flight = families.gauge("in_flight", "Requests in the pod without an answer yet.")
        self.shed = families.counter(
            "shed",
            "Requests refused as overload before they were read. full: too many in flight; tenant, loading: their "
            "tenant, or those that wait for policies, have their share of a pod that is half full; stale: they waited "
            "while the pod stood still.",
            "cause",
        )
        for cause in Shed:
            self.shed.labels(cause.value)
        self.reply_subjects_refused = families.counter(
            "reply_subjects_refused",
            "Requests dropped because the router does not publish to their reply subject, by reason.",
            "reason",
        )
        for reason in ReplyRefusal:
            self.reply_subjects_refused.labels(reason.value)
        pins = families.counter("pins", "Decisions with a pin, by the state of the pin.", "state")
        self.pins: Mapping[PinState, Counter] = {
            state: pins.labels(state.name.lower()) for state in PinState if state is not PinState.NONE
        }
        self.shadow_hits = families.counter(
            "shadow_limit_hits", "Decisions that a limit in shadow mode would have refused."
        )
        self.limit_refusals = families.counter(
            "limit_refusals", "Requests that a limit refused, by its scope and resource.", "scope", "resource"
        )
        for scope, resource in product(Scope, Resource):
            self.limit_refusals.labels(scope.value, resource.value)
        self._limit_usage(families)

    def _limit_usage(self, families: Families) -> None:
        """Limits and breakers of the tenants in use, set by `usecases.sampling.measure`."""
        self.limit_used = families.gauge(
            "limit_used_ratio",
            "Usage share of the fullest limit, from the leading pod; 0 on the others. Without per-user limits.",
            "scope",
            "resource",
            "tenant",
        )
        self.limits_near = families.gauge(
            "limits_near",
            "Limits that are at least 90 % full, from the leading pod; 0 on the others.",
            "scope",
            "resource",
        )
        self.breakers = families.gauge(
            "breakers",
            "Provider breakers that are not closed, from the leading pod; 0 on the others. forced: held open by an "
            "operator; half_open: also those whose next request is a probe.",
            "state",
        )
        self.measured_tenants = families.gauge(
            "measured_tenants", "Tenants whose limits and breakers are measured; 0 on pods that do not lead."
        )
        for scope, resource in product(Scope, Resource):
            if scope is not Scope.USER:
                self.limit_used.labels(scope.value, resource.value, OTHER)
                self.limits_near.labels(scope.value, resource.value)
        for state in BREAKER_STATES:
            self.breakers.labels(state)

    def _extensions(self, families: Families) -> None:
        self.extension_calls = families.counter(
            "extension_calls", "Extension calls, and steps without a call, by outcome.", "stage", "outcome"
        )
        self.extension_seconds = families.histogram(
            "extension_seconds", "Duration of one extension call.", _LONG, "stage"
        )
        self.extension_breakers = families.counter(
            "extension_breaker_transitions",
            "State changes of extension breakers that this pod observed, by new state.",
            "to",
        )
        self.pipelines = families.gauge("pipelines", "Requests that wait for their extensions.")
        self.decisions_undone = families.counter(
            "decisions_undone", "Decisions undone because their post extensions failed or their pod died.", "cause"
        )

    def _store(self, families: Families) -> None:
        self.batch_rows = families.histogram("batch_rows", "Decide rows in one store call.", _ROWS).child()
        self.store_call_seconds = families.histogram(
            "store_call_seconds", "Duration of one script call, from send to reply or deadline.", _LATENCY, "script"
        )
        self.store_timeouts = families.counter("store_timeouts", "Store calls without a reply by their deadline.")
        self.store_errors = families.counter("store_errors", "Store calls that failed for other reasons.")
        self.store_late_rows = families.counter("store_late_rows", "Rows that reached the store after their not_after.")
        self.store_row_faults = families.counter("store_row_faults", "Rows that the script could not run.")
        self.store_breaker_open = families.gauge(
            "store_breaker_open", "1 while the store counts as unavailable or refuses calls."
        )
        self.store_reseeded = families.counter(
            "store_reseeded", "Times that an empty store was found and seeded again."
        )
        self.store_memory_share = families.gauge(
            "store_memory_share",
            "Used memory as a share of maxmemory, on the fullest node; 0 without maxmemory; NaN if INFO is blocked.",
        )
        self.store_keys = families.gauge(
            "store_keys", "Keys of each kind, estimated from a sample by the leading pod; 0 on the others.", "kind"
        )
        self.store_key_bytes = families.gauge(
            "store_key_bytes", "Bytes of the keys of each kind in Redis, estimated like router_store_keys.", "kind"
        )
        self.store_sampled_share = families.gauge(
            "store_sampled_share", "Sampled keys as a share of all keys; 0 on pods that do not lead."
        )
        for kind in self.store_kinds:
            self.store_keys.labels(kind)
            self.store_key_bytes.labels(kind)
        self.audit_deferred = families.gauge(
            "audit_deferred", "Audit records of degraded decisions that wait for the store."
        )

    def _audit(self, families: Families) -> None:
        self.audit_appended = families.counter(
            "audit_appended", "Audit entries written, from periodic checks of the logs.", "tenant"
        )
        self.audit_appended.labels(OTHER)
        self.audit_cut = families.counter(
            "audit_cut", "Audit entries removed for their age, or earlier by the bound on length.", "by"
        )
        for by in ("age", "length"):
            self.audit_cut.labels(by)
        self.audit_exported = families.counter(
            "audit_exported", "Audit entries that the export stored outside of Redis."
        )
        self.audit_export_failures = families.counter("audit_export_failures", "Exports that failed and are retried.")
        self.audit_export_lag = families.gauge(
            "audit_export_lag_share",
            "Unexported entries of the log that is furthest behind, as a share of ROUTER_AUDIT_MAX_LEN, over the logs "
            "that this pod checked in the last 1 to 2 minutes. At 1, entries are lost unexported.",
        )
        self.audit_export_lost = families.counter(
            "audit_export_lost", "Audit entries removed before the export read them."
        )
        self.audit_read_seconds = families.histogram(
            "audit_read_seconds", "Duration of one bounded read of an audit log by this pod.", _LONG
        ).child()
        self.audit_unknown = families.counter(
            "audit_unknown_tenants",
            "Refusals for unknown tenants: recorded in the audit log of no tenant, or dropped.",
            "outcome",
        )
        for outcome in ("recorded", "dropped"):
            self.audit_unknown.labels(outcome)
        self.audit_unrecorded = families.counter(
            "audit_unrecorded", "Refusals that the audit counts instead of recording each (ROUTER_QUOTA_AUDIT_RATE)."
        )

    def _policies_and_gate(self, families: Families, tenants: Iterable[str]) -> None:
        self.policy_reloads = families.counter("policy_reloads", "Policy loads, by cause.", "cause")
        self.policy_load_failures = families.counter(
            "policy_load_failures", "Policy loads that failed; the last good policies stay."
        )
        self.policy_loads_waiting = families.gauge(
            "policy_loads_waiting", "Tenants whose requests wait for a load of policies to start; mostly unknown names."
        )
        self.policy_cache_bytes = families.gauge("policy_cache_bytes", "Estimated size of the compiled policies.")
        self.policy_cache_entries = families.gauge("policy_cache_entries", "Tenants in the policy cache.")
        self.policy_skew = families.gauge(
            "policy_revision_skew", "Cached tenants whose revision differs from the store's, as decide rows report."
        )
        self.policy_skew_age = families.gauge(
            "policy_revision_skew_seconds",
            "Time that the oldest tenant in router_policy_revision_skew has been behind; 0 if there is none.",
        )
        self.policy_revision = families.per_tenant(
            "policy_revision",
            "Policy revision that the pod decides by; 0: not cached. Only for ROUTER_METRICS_TENANTS.",
            tenants,
            self.decisions,
        )
        self.figures_tenants = families.gauge("figures_tenants", "Tenants whose live figures the pod holds.")
        self.figures_failures = families.counter(
            "figures_failures", "Reads of live figures that failed; the last figures stay."
        )
        self.cp_fallbacks = families.counter(
            "cp_fallback", "Times that the gate fell back to the CP1 baseline.", "reason"
        )
        for fault in Fault:
            self.cp_fallbacks.labels(fault.value)
        self.gate_open = families.gauge("gate_open", "1 while the CP gate allows all features.")

    def _tasks(self, families: Families) -> None:
        self.results_settled = families.counter("results_settled", "Results that settled an attempt.", "status")
        self.results_refused = families.counter("results_refused", "Results that did not settle an attempt.", "reason")
        self.usage_settled = families.counter("usage_settled", "Usage events that settling has put into the outbox.")
        self.usage_published = families.counter(
            "usage_published", "Usage events published to the stream and removed from the outbox."
        )
        self.usage_duplicate = families.counter(
            "usage_duplicate", "Usage publishes that the stream dropped as duplicates: not metered again."
        )
        self.usage_reconciliation = families.gauge(
            "usage_reconciliation",
            "Settled minus published usage of the fleet: the size of the outbox. Returns to zero.",
        )
        self.assignments_published = families.counter(
            "assignments_published", "Assignments published, further attempts included."
        )
        self.assignments_duplicate = families.counter(
            "assignments_duplicate",
            "Assignment publishes that the stream dropped as duplicates: no worker gets them again.",
        )
        self.assignments_timed_out = families.counter("assignments_timed_out", "Attempts whose deadline passed.")
        self.assignments_undispatched = families.counter(
            "assignments_undispatched", "Attempts that the server refused or that were never sent; their tasks ended."
        )
        self.final_results = families.counter(
            "final_results",
            "Final results published to callers: by the pod that ended the task, by a sweeper after no confirmation, "
            "to a caller who repeated the request, or failed.",
            "outcome",
        )
        for outcome in ("pod", "sweeper", "repeat", "failed"):
            self.final_results.labels(outcome)
        self.isolation_violations = families.counter(
            "isolation_violations",
            "Refused messages that cross tenants: a result or ack for another tenant's task, a request or query that "
            "names two tenants, a query for another tenant's decision.",
            "door",
        )
        for door in Door:
            self.isolation_violations.labels(door.value)
        self.input_defects = families.counter(
            "input_defects",
            "Defects that did not cost the message: something else was read, or the field was dropped.",
            "message",
            "defect",
        )
        self.dead_letters = families.counter("dead_letters", "Messages that became dead letters, by source.", "source")
        self.redriven = families.counter(
            "redriven", "Dead letters received again after a redrive, by stream.", "stream"
        )
        self.breaker_transitions = families.counter(
            "breaker_transitions", "Observed breaker changes, by new state.", "to"
        )
        for source in ("router", "worker"):
            self.dead_letters.labels(source)
        for turn in BreakerTurn:
            if turn is not BreakerTurn.UNCHANGED:
                self.breaker_transitions.labels(turn.name.lower())
        self.worker_heartbeats = families.counter(
            "worker_heartbeats", "Worker heartbeats received, by status.", "status"
        )
        self.workers = families.gauge("workers", "Workers with a heartbeat in the last minute.")

    def _bus(self, families: Families) -> None:
        self.publishes = families.totals(
            "publishes",
            "JetStream publishes: stored, duplicate, failed, resent, or core (the subject has no stream).",
            "outcome",
        )
        self.stream_differences = families.gauge(
            "stream_differences", "Differences of streams and consumers from the settings; the log lists them."
        )
        self.redeliveries = families.totals("redeliveries", "Messages delivered more than once.", "stream")
        self.consumer_stalls = families.totals("consumer_stalls", "Pull loops that the watchdog restarted.", "stream")
        self.consumers_paused = families.gauge(
            "consumers_paused", "1 while consumers are paused because the store is unavailable."
        )
        self.consumer_lag = families.gauge(
            "consumer_lag",
            "Messages in the stream that no pod has received yet; while this pod pauses, also those without an ack.",
            "stream",
        )
        self.nats_connected = families.gauge("nats_connected", "1 while the pod is connected to NATS.")
        self.nats_rtt = families.gauge("nats_rtt_seconds", "Last round trip to the NATS server.")
        self.nats_connects = families.totals("nats_connects", "Connections to NATS, including the first.")
        self.nats_dropped = families.totals("nats_dropped", "Messages dropped because a subscription was full.")

    def _pod(self, families: Families) -> None:
        self.admin_acts = families.counter(
            "admin_acts",
            "Admin acts over NATS, by outcome: done, forbidden (token or role), or an error code.",
            "act",
            "outcome",
        )
        self.admin_wrong_tokens = families.counter(
            "admin_wrong_tokens", "Admin acts refused because their token is unknown."
        )
        self.ready = families.gauge("ready", "1 while /readyz reports ready.")
        self.degraded = families.gauge(
            "degraded", "1 while this part of the pod is off; /readyz has the reason.", "part"
        )
        for part in Degradable:
            self.degraded.labels(part.value).set(0)
        self.alerts_raised = families.counter("alerts_raised", "Alerts raised by this pod.", "condition", "severity")
        for condition, kind in ALERTS.items():
            self.alerts_raised.labels(condition.value, kind.severity.value)
        self.alerts_lost = families.counter("alerts_lost", "Alerts that could not be published.")
        self.loop_lag = families.histogram(
            "loop_lag_seconds", "Delay with which the event loop ran a timer.", _LAG
        ).child()


def render(registry: CollectorRegistry, *, backpressure_active: bool) -> bytes:
    """Render the text format 0.0.4. An existing gateway reads only the first line."""
    return f"{BACKPRESSURE.name} {int(backpressure_active)}\n".encode() + generate_latest(registry)
