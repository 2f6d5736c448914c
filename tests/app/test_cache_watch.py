"""Loads of policies that fail: all counted, few said."""

import pytest
from prometheus_client import CollectorRegistry

from router.app.observers.policy_watch import CacheWatch
from router.telemetry import Telemetry


def test_an_outage_is_one_line_however_many_tenants_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """The metric has them all; another reason is said at once."""
    registry = CollectorRegistry()
    watch = CacheWatch(Telemetry(registry), served=lambda _: None)
    for n in range(1000):
        watch.failed(f"tenant-{n}", "Redis: connection refused")
    watch.failed("other", "head of format 9")
    assert [r.getMessage() for r in caplog.records] == [
        "policies could not be loaded: Redis: connection refused",
        "policies could not be loaded: head of format 9",
    ]
    assert registry.get_sample_value("router_policy_load_failures_total") == 1001


def test_a_revision_has_a_series_while_tenant_labels_are_on() -> None:
    """Only for listed tenants; in the CP1 baseline there is none, and afterwards the current value is there at once."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, tenants=["acme", "idle"])
    watch = CacheWatch(telemetry, served=lambda _: None)

    def series() -> dict[str, float]:
        (family,) = [f for f in registry.collect() if f.name == "router_policy_revision"]
        return {s.labels["tenant"]: s.value for s in family.samples}

    watch.cached("acme", 3)
    watch.cached("globex", 4)
    assert series() == {"acme": 3, "idle": 0}
    telemetry.decisions.per_tenant(False)
    watch.cached("acme", 5)
    assert series() == {}
    telemetry.decisions.per_tenant(True)
    assert series() == {"acme": 5, "idle": 0}
    watch.cached("acme", None)
    assert series() == {"acme": 0, "idle": 0}
