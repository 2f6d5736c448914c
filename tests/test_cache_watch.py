"""Loads of policies that fail: all counted, few said."""

import pytest
from prometheus_client import CollectorRegistry

from router.app.observers import CacheWatch
from router.telemetry import Telemetry


def test_an_outage_is_one_line_however_many_tenants_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """The metric has them all; another reason is said at once."""
    registry = CollectorRegistry()
    watch = CacheWatch(Telemetry(registry), (), served=lambda _: None)
    for n in range(1000):
        watch.failed(f"tenant-{n}", "Redis: connection refused")
    watch.failed("other", "head of format 9")
    assert [r.getMessage() for r in caplog.records] == [
        "policies could not be loaded: Redis: connection refused",
        "policies could not be loaded: head of format 9",
    ]
    assert registry.get_sample_value("router_policy_load_failures_total") == 1001
