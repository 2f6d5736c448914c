"""Create metric families in one registry, and keep a row of each for the reference."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.registry import Collector

from router.telemetry.tally import Decisions, Histogram, PerTenant, Totals


class MetricRow(NamedTuple):
    """One row of the reference. `name` is the name in a scrape."""

    name: str
    kind: str
    labels: tuple[str, ...]
    documentation: str


class Families:
    """Creates families; `rows` describes all, in order. `first` is a metric that is printed without the registry."""

    def __init__(self, registry: CollectorRegistry, first: MetricRow) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self.rows: list[MetricRow] = [first]
        ProcessCollector(registry=registry)

    def counter(self, name: str, *, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
        """Create a counter for use off the hot path; `_total` is added to its name."""
        self.rows.append(
            MetricRow(name=f"router_{name}_total", kind="counter", labels=labels, documentation=documentation)
        )
        return Counter(f"router_{name}", documentation=documentation, labelnames=labels, registry=self._registry)

    def gauge(self, name: str, *, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Create a gauge."""
        self.rows.append(MetricRow(name=f"router_{name}", kind="gauge", labels=labels, documentation=documentation))
        return Gauge(f"router_{name}", documentation=documentation, labelnames=labels, registry=self._registry)

    def histogram(
        self, name: str, *, documentation: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        """Create a histogram that is cheap enough for the hot path."""
        histogram = Histogram(f"router_{name}", documentation=documentation, bounds=bounds, labels=labels)
        self._registry.register(histogram)
        self.rows.append(MetricRow(name=f"router_{name}", kind="histogram", labels=labels, documentation=documentation))
        return histogram

    def totals(self, name: str, *, documentation: str, labels: tuple[str, ...] = ()) -> Totals:
        """Create a counter whose values are read from elsewhere at a scrape; `_total` is added to its name."""
        totals = Totals(f"router_{name}", documentation=documentation, labels=labels)
        self.own(totals, name=f"router_{name}", documentation=documentation, labels=labels)
        return totals

    def per_tenant(self, name: str, *, documentation: str, tenants: Iterable[str], decisions: Decisions) -> PerTenant:
        """Create a gauge with a series for each of `tenants`, while tenant labels are on."""
        gauge = PerTenant(f"router_{name}", documentation=documentation, tenants=tenants, decisions=decisions)
        self._registry.register(gauge)
        self.rows.append(
            MetricRow(name=f"router_{name}", kind="gauge", labels=("tenant",), documentation=documentation)
        )
        return gauge

    def own(self, counter: Collector, *, name: str, documentation: str, labels: Sequence[str]) -> None:
        """Register a counter family of another class, under its full name; `_total` is added."""
        self._registry.register(counter)
        self.rows.append(
            MetricRow(name=f"{name}_total", kind="counter", labels=tuple(labels), documentation=documentation)
        )
