"""Metrics of the pod itself: readiness, alerts, admin acts, the event loop."""

from router.domain.alert import ALERTS
from router.domain.degraded import Degradable
from router.telemetry.families import Families
from router.telemetry.metrics.bounds import LAG


class PodMetrics:
    """Counted by the pod, `usecases.alerts` and `usecases.admin`."""

    def _pod(self, families: Families) -> None:
        self.admin_acts = families.counter(
            "admin_acts",
            documentation="Admin acts over NATS, by outcome: done, forbidden (token or role), or an error code.",
            labels=("act", "outcome"),
        )
        self.admin_reads_shared = families.counter(
            "admin_reads_shared",
            documentation="Administrative reads over all tenants that shared the answer of an equal one.",
        )
        self.admin_wrong_tokens = families.counter(
            "admin_wrong_tokens", documentation="Admin acts refused because their token is unknown."
        )
        self.api_requests = families.counter(
            "api_requests", documentation="HTTP requests to the API, by route and status.", labels=("route", "status")
        )
        self.api_wrong_keys = families.counter(
            "api_wrong_keys", documentation="HTTP requests refused because their API key is unknown."
        )
        self.rotations = families.counter(
            "secret_rotations",
            documentation="Changed secret files, by part (nats, redis, admin) and outcome: done, or refused (also as "
            "invalid).",
            labels=("part", "outcome"),
        )
        for part in ("nats", "redis", "admin"):
            for outcome in ("done", "refused"):
                self.rotations.labels(part, outcome)
        self.ready = families.gauge("ready", documentation="1 while /readyz reports ready.")
        self.degraded = families.gauge(
            "degraded", documentation="1 while this part of the pod is off; /readyz has the reason.", labels=("part",)
        )
        for part in Degradable:
            self.degraded.labels(part.value).set(0)
        self.alerts_raised = families.counter(
            "alerts_raised", documentation="Alerts raised by this pod.", labels=("condition", "severity")
        )
        for condition, kind in ALERTS.items():
            self.alerts_raised.labels(condition.value, kind.severity.value)
        self.alerts_lost = families.counter("alerts_lost", documentation="Alerts that could not be published.")
        self.loop_tasks = families.gauge("loop_tasks", documentation="Tasks of the pod's event loop.")
        self.loop_lag = families.histogram(
            "loop_lag_seconds", documentation="Delay with which the event loop ran a timer.", bounds=LAG
        ).child()
