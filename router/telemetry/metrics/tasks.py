"""Metrics of tasks: assignments, results, usage, dead letters, workers."""

from router.domain.alert import Door
from router.domain.tasks.task import BreakerTurn
from router.telemetry.families import Families


class TaskMetrics:
    """Counted by `usecases.tasks` and `usecases.messages`."""

    def _tasks(self, families: Families) -> None:
        self.results_settled = families.counter(
            "results_settled", documentation="Results that settled an attempt.", labels=("status",)
        )
        self.results_refused = families.counter(
            "results_refused", documentation="Results that did not settle an attempt.", labels=("reason",)
        )
        self.usage_settled = families.counter(
            "usage_settled", documentation="Usage events that settling has put into the outbox."
        )
        self.usage_published = families.counter(
            "usage_published", documentation="Usage events published to the stream and removed from the outbox."
        )
        self.usage_duplicate = families.counter(
            "usage_duplicate", documentation="Usage publishes that the stream dropped as duplicates: not metered again."
        )
        self.usage_reconciliation = families.gauge(
            "usage_reconciliation",
            documentation="Settled minus published usage of the fleet: the size of the outbox. Returns to zero.",
        )
        self.assignments_published = families.counter(
            "assignments_published", documentation="Assignments published, further attempts included."
        )
        self.assignments_duplicate = families.counter(
            "assignments_duplicate",
            documentation="Assignment publishes that the stream dropped as duplicates: no worker gets them again.",
        )
        self.assignments_timed_out = families.counter(
            "assignments_timed_out", documentation="Attempts whose deadline passed."
        )
        self.assignments_undispatched = families.counter(
            "assignments_undispatched",
            documentation="Attempts that the server refused or that were never sent; their tasks ended.",
        )
        self.final_results = families.counter(
            "final_results",
            documentation="Final results published to callers: by the pod that ended the task, by a sweeper after no "
            "confirmation, to a caller who repeated the request, or failed.",
            labels=("outcome",),
        )
        for outcome in ("pod", "sweeper", "repeat", "failed"):
            self.final_results.labels(outcome)
        self.isolation_violations = families.counter(
            "isolation_violations",
            documentation="Refused messages that cross tenants: a result or ack for another tenant's task, a request "
            "or query that names two tenants, a query for another tenant's decision.",
            labels=("door",),
        )
        for door in Door:
            self.isolation_violations.labels(door.value)
        self.input_defects = families.counter(
            "input_defects",
            documentation="Defects that did not cost the message: something else was read, or the field was dropped.",
            labels=("message", "defect"),
        )
        self.dead_letters = families.counter(
            "dead_letters",
            documentation="Messages that became dead letters, by source; left_out: unusable ones that share a dead "
            "letter.",
            labels=("source",),
        )
        self.redriven = families.counter(
            "redriven", documentation="Dead letters received again after a redrive, by stream.", labels=("stream",)
        )
        self.breaker_transitions = families.counter(
            "breaker_transitions", documentation="Observed breaker changes, by new state.", labels=("to",)
        )
        for source in ("router", "worker", "left_out"):
            self.dead_letters.labels(source)
        for turn in BreakerTurn:
            if turn is not BreakerTurn.UNCHANGED:
                self.breaker_transitions.labels(turn.name.lower())
        self.worker_acks = families.counter("worker_acks", documentation="Acks that moved an attempt.")
        self.worker_heartbeats = families.counter(
            "worker_heartbeats", documentation="Worker heartbeats received, by status.", labels=("status",)
        )
        self.workers = families.gauge("workers", documentation="Workers with a heartbeat in the last minute.")
