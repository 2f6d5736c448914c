"""Every metric of a pod, by name, in one place. Label sets are closed: a value is from an enum, code or settings.

What an alerting rule looks at is made at start-up, with every label value: a series that begins at 1 has no increase.
Totals that a room keeps for itself are read from it (`redeliveries.read_from(lambda: loop.redelivered, "result")`).
"""

from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from router.domain.alert import ALERTS, Door
from router.domain.gate import Fault
from router.domain.policy.model import Resource, Scope
from router.domain.task import BreakerTurn
from router.telemetry.families import Families, MetricRow
from router.telemetry.tally import OTHER, Decisions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)
# Of what may take seconds: answers that wait for extensions, and the status' bound of 5 s for them.
_LONG = (*_LATENCY, 2.0, 3.0, 4.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BREAKER_STATES = ("open", "half_open", "forced")
_LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


BACKPRESSURE = MetricRow(
    "router_intake_backpressure_active", "gauge", (), "1 while callers should slow down; always the very first line."
)


class Telemetry:
    """The metrics of one pod, in the registry it is given. `tenants` are those with a label of their own,
    `store_kinds` the kinds of keys.

    `rows` describes them all.
    """

    def __init__(
        self, registry: CollectorRegistry, tenants: Iterable[str] = (), store_kinds: Iterable[str] = ()
    ) -> None:
        self.registry = registry
        make = Families(registry, BACKPRESSURE)
        self.rows = make.rows
        self.store_kinds = tuple(store_kinds)
        self._decide(make, tenants)
        self._extensions(make)
        self._store(make)
        self._audit(make)
        self._policies_and_gate(make)
        self._tasks(make)
        self._bus(make)
        self._pod(make)

    def _decide(self, make: Families, tenants: Iterable[str]) -> None:
        latency = make.histogram("decision_seconds", "From the request's arrival to its answer.", _LONG).child()
        self.latency = latency
        self.decisions = Decisions(tenants, latency)
        make.own(self.decisions, Decisions.NAME, Decisions.DOCUMENTATION, Decisions.LABELS)
        self.in_flight = make.gauge("in_flight", "Requests in the pod that have no answer yet.")
        self.shed = make.counter("shed", "Requests refused before decoding because too many were in flight.")
        self.pins = make.counter("pins", "Decisions with a pin, by what became of it.", "state")
        self.shadow_hits = make.counter(
            "shadow_limit_hits", "Decisions that a limit in shadow mode would have refused."
        )
        self.limit_refusals = make.counter(
            "limit_refusals", "Requests that a limit refused, by who shares it and what it counts.", "scope", "resource"
        )
        for scope, resource in product(Scope, Resource):
            self.limit_refusals.labels(scope.value, resource.value)
        self._standing(make)

    def _standing(self, make: Families) -> None:
        """What `usecases.sampling.measure` tells of tenants in use."""
        self.limit_used = make.gauge(
            "limit_used_ratio",
            "How full the fullest limit of a kind is, by the pod that leads; 0 on the others. Without limits of users.",
            "scope",
            "resource",
            "tenant",
        )
        self.limits_near = make.gauge(
            "limits_near", "Limits that are nine tenths full, or more; as before.", "scope", "resource"
        )
        self.breakers = make.gauge(
            "breakers", "Breakers of providers that are not closed; forced: by an operator. As before.", "state"
        )
        self.measured_tenants = make.gauge(
            "measured_tenants", "Tenants in use whose limits and breakers these are; 0 on pods that do not lead."
        )
        for scope, resource in product(Scope, Resource):
            if scope is not Scope.USER:
                self.limit_used.labels(scope.value, resource.value, OTHER)
                self.limits_near.labels(scope.value, resource.value)
        for state in BREAKER_STATES:
            self.breakers.labels(state)

    def _extensions(self, make: Families) -> None:
        self.extension_calls = make.counter(
            "extension_calls", "Calls of extensions, and steps without a call, by outcome.", "stage", "outcome"
        )
        self.extension_seconds = make.histogram("extension_seconds", "One call of an extension.", _LONG, "stage")
        self.extension_breakers = make.counter(
            "extension_breaker_transitions", "Breakers of extensions that this pod saw turn.", "to"
        )
        self.pipelines = make.gauge("pipelines", "Requests that are with their extensions.")
        self.decisions_undone = make.counter(
            "decisions_undone", "Decisions taken back because their post extensions failed or their pod died.", "cause"
        )

    def _store(self, make: Families) -> None:
        self.batch_rows = make.histogram("batch_rows", "Decide rows in one store call.", _ROWS).child()
        self.store_call_seconds = make.histogram(
            "store_call_seconds", "One call of a script, from send to reply or deadline.", _LATENCY, "script"
        )
        self.store_timeouts = make.counter("store_timeouts", "Store calls not answered by their deadline.")
        self.store_errors = make.counter("store_errors", "Store calls that failed otherwise.")
        self.store_late_rows = make.counter("store_late_rows", "Rows that reached the store after their not_after.")
        self.store_row_faults = make.counter("store_row_faults", "Rows that the script could not run.")
        self.store_breaker_open = make.gauge(
            "store_breaker_open", "1 while the store is held to be away, or refuses calls."
        )
        self.store_reseeded = make.counter("store_reseeded", "Times an empty store was found and seeded again.")
        self.store_memory_share = make.gauge(
            "store_memory_share", "Used memory as a share of maxmemory, on the fullest node; 0 without a bound."
        )
        self.store_keys = make.gauge(
            "store_keys", "Keys of each kind, estimated from a sample by the pod that leads; 0 on the others.", "kind"
        )
        self.store_key_bytes = make.gauge("store_key_bytes", "Their bytes in Redis, estimated alike.", "kind")
        self.store_sampled_share = make.gauge(
            "store_sampled_share", "Share of all keys that the sample is; 0 on pods that do not lead."
        )
        for kind in self.store_kinds:
            self.store_keys.labels(kind)
            self.store_key_bytes.labels(kind)
        self.audit_deferred = make.gauge(
            "audit_deferred", "Audit records of degraded decisions that wait for the store."
        )

    def _audit(self, make: Families) -> None:
        self.audit_appended = make.counter(
            "audit_appended", "Audit entries written, as seen by looks at the logs.", "tenant"
        )
        self.audit_appended.labels(OTHER)
        self.audit_cut = make.counter(
            "audit_cut", "Audit entries cut for their age, or by the bound on length though they were younger.", "by"
        )
        for by in ("age", "length"):
            self.audit_cut.labels(by)
        self.audit_exported = make.counter("audit_exported", "Audit entries stored outside by the export.")
        self.audit_export_failures = make.counter("audit_export_failures", "Exports that failed and are tried again.")
        self.audit_export_lag = make.gauge(
            "audit_export_lag_share",
            "Entries that the export has not read, of the log furthest behind that this pod saw in the last minute or "
            "two, as a share of ROUTER_AUDIT_MAX_LEN: at 1 entries are cut unread.",
        )
        self.audit_export_lost = make.counter("audit_export_lost", "Audit entries cut before the export read them.")
        self.audit_read_seconds = make.histogram(
            "audit_read_seconds", "One bounded read of an audit log by this pod.", _LONG
        ).child()
        self.audit_unknown = make.counter(
            "audit_unknown_tenants",
            "Refusals without a tenant's log: recorded in the shared one, or dropped.",
            "outcome",
        )
        for outcome in ("recorded", "dropped"):
            self.audit_unknown.labels(outcome)
        self.audit_unrecorded = make.counter(
            "audit_unrecorded", "Refusals counted in the audit instead of recorded each: ROUTER_QUOTA_AUDIT_RATE."
        )

    def _policies_and_gate(self, make: Families) -> None:
        self.policy_reloads = make.counter("policy_reloads", "Policy loads, by what caused them.", "cause")
        self.policy_load_failures = make.counter(
            "policy_load_failures", "Policy loads that failed; the last good one is kept."
        )
        self.policy_cache_bytes = make.gauge("policy_cache_bytes", "Estimated size of the compiled policies.")
        self.policy_cache_entries = make.gauge("policy_cache_entries", "Tenants in the policy cache.")
        self.policy_skew = make.gauge(
            "policy_revision_skew", "Cached tenants of which the store has another revision, as decide rows tell."
        )
        self.policy_skew_age = make.gauge(
            "policy_revision_skew_seconds", "How long the oldest of these has been behind; 0 when none is."
        )
        self.policy_revision = make.gauge(
            "policy_revision", "Revision that the pod decides by; 0: not cached. ROUTER_METRICS_TENANTS only.", "tenant"
        )
        self.figures_tenants = make.gauge("figures_tenants", "Tenants whose live figures the pod holds.")
        self.figures_failures = make.counter(
            "figures_failures", "Reads of live figures that failed; the last ones are kept."
        )
        self.cp_fallbacks = make.counter("cp_fallback", "Times the gate fell back to the CP1 baseline.", "reason")
        for fault in Fault:
            self.cp_fallbacks.labels(fault.value)
        self.gate_open = make.gauge("gate_open", "1 while the CP gate lets all features through.")

    def _tasks(self, make: Families) -> None:
        self.results_settled = make.counter("results_settled", "Results that settled an attempt.", "status")
        self.results_refused = make.counter("results_refused", "Results that settled nothing.", "reason")
        self.usage_settled = make.counter("usage_settled", "Usage events that settling wrote into the outbox.")
        self.usage_published = make.counter(
            "usage_published", "Usage events that are in the stream and left the outbox."
        )
        self.usage_duplicate = make.counter(
            "usage_duplicate", "Usage publishes that the stream had already: not metered again."
        )
        self.usage_reconciliation = make.gauge(
            "usage_reconciliation",
            "Usage settled − published, of the whole fleet: what the outbox holds. Returns to zero.",
        )
        self.assignments_published = make.counter(
            "assignments_published", "Assignments published, further attempts included."
        )
        self.assignments_duplicate = make.counter(
            "assignments_duplicate", "Assignment publishes that the stream had already: no worker gets them again."
        )
        self.assignments_timed_out = make.counter("assignments_timed_out", "Attempts whose deadline passed.")
        self.final_results = make.counter(
            "final_results",
            "Final results published to callers: by the pod that ended the task, by a sweeper because nobody had "
            "confirmed it, or failed, and tried again.",
            "outcome",
        )
        for outcome in ("pod", "sweeper", "failed"):
            self.final_results.labels(outcome)
        self.isolation_violations = make.counter(
            "isolation_violations",
            "Refused: a result or receipt of another tenant's task, a request or query that names two tenants, a query "
            "for another tenant's decision.",
            "door",
        )
        for door in Door:
            self.isolation_violations.labels(door.value)
        self.dead_letters = make.counter("dead_letters", "Messages given up on, by who gave up.", "source")
        self.redriven = make.counter("redriven", "Dead letters that came again by a re-drive, by stream.", "stream")
        self.breaker_transitions = make.counter("breaker_transitions", "Breaker changes seen, by new state.", "to")
        for source in ("router", "worker"):
            self.dead_letters.labels(source)
        for turn in BreakerTurn:
            if turn is not BreakerTurn.UNCHANGED:
                self.breaker_transitions.labels(turn.name.lower())
        self.worker_heartbeats = make.counter("worker_heartbeats", "Heartbeats of workers.", "status")
        self.workers = make.gauge("workers", "Workers heard of in the last minute.")

    def _bus(self, make: Families) -> None:
        self.publishes = make.totals(
            "publishes", "JetStream publishes: stored, duplicate, failed, resent, or core (no stream there).", "outcome"
        )
        self.stream_differences = make.gauge(
            "stream_differences", "Ways in which streams and consumers are not as the settings say; the log names them."
        )
        self.redeliveries = make.totals("redeliveries", "Messages delivered more than once.", "stream")
        self.consumer_stalls = make.totals("consumer_stalls", "Pull loops that the watchdog started again.", "stream")
        self.consumers_paused = make.gauge("consumers_paused", "1 while nothing is pulled because the store is away.")
        self.consumer_lag = make.gauge("consumer_lag", "Messages in the stream that no pod was given yet.", "stream")
        self.nats_connected = make.gauge("nats_connected", "1 while connected.")
        self.nats_rtt = make.gauge("nats_rtt_seconds", "Last round trip to the NATS server.")
        self.nats_connects = make.totals("nats_connects", "Connections made, the first included.")
        self.nats_dropped = make.totals("nats_dropped", "Messages dropped because a subscription was full.")

    def _pod(self, make: Families) -> None:
        self.admin_acts = make.counter(
            "admin_acts", "Admin acts over NATS: done, forbidden (token or role), or an error code.", "act", "outcome"
        )
        self.ready = make.gauge("ready", "1 while /readyz says so.")
        self.alerts_raised = make.counter("alerts_raised", "Alerts raised by this pod.", "condition", "severity")
        for condition, kind in ALERTS.items():
            self.alerts_raised.labels(condition.value, kind.severity.value)
        self.alerts_lost = make.counter("alerts_lost", "Alerts that could not be published.")
        self.loop_lag = make.histogram("loop_lag_seconds", "How late the event loop ran a timer.", _LAG).child()


def render(registry: CollectorRegistry, *, backpressure_active: bool) -> bytes:
    """The text format 0.0.4. An existing gateway reads only the very first line."""
    return f"{BACKPRESSURE.name} {int(backpressure_active)}\n".encode() + generate_latest(registry)
