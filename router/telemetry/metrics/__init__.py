"""Every metric of a pod. Label sets are closed: each value comes from an enum, a constant or the settings.

Series used by alerting rules are created at start-up with every label value, since `increase()` misses the first event
of a series that begins at 1. Totals that a component keeps itself are read from it at a scrape
(`redeliveries.read_from(lambda: loop.redelivered, "result")`).
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from router.telemetry.families import Families, MetricRow
from router.telemetry.metrics.audit import AuditMetrics
from router.telemetry.metrics.bus import BusMetrics
from router.telemetry.metrics.decisions import DecisionMetrics
from router.telemetry.metrics.extensions import ExtensionMetrics
from router.telemetry.metrics.pod import PodMetrics
from router.telemetry.metrics.policies import PolicyMetrics
from router.telemetry.metrics.store import StoreMetrics
from router.telemetry.metrics.tasks import TaskMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


BACKPRESSURE = MetricRow(
    name="router_intake_backpressure_active",
    kind="gauge",
    labels=(),
    documentation="1 while callers should slow down; always the first line.",
)


class Telemetry(
    DecisionMetrics, ExtensionMetrics, StoreMetrics, AuditMetrics, PolicyMetrics, TaskMetrics, BusMetrics, PodMetrics
):
    """The metrics of one pod, in the given registry; `rows` describes them all, in the order of the reference.

    `tenants` are the tenants with a label of their own, `store_kinds` the kinds of Redis keys.
    """

    def __init__(
        self, registry: CollectorRegistry, tenants: Iterable[str] = (), store_kinds: Iterable[str] = ()
    ) -> None:
        self.registry = registry
        self.store_kinds = tuple(store_kinds)
        families = Families(registry, BACKPRESSURE)
        self.rows = families.rows
        self._decisions(families, tenants)
        self._extensions(families)
        self._store(families, self.store_kinds)
        self._audit(families)
        self._policies(families, tenants, self.decisions)
        self._tasks(families)
        self._bus(families)
        self._pod(families)


def render(registry: CollectorRegistry, *, backpressure_active: bool) -> bytes:
    """Render the text format 0.0.4. An existing gateway reads only the first line."""
    return f"{BACKPRESSURE.name} {int(backpressure_active)}\n".encode() + generate_latest(registry)
