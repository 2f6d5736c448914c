"""Slow audit: raised after ten seconds of it, over after ten quick ones."""

import pytest
from prometheus_client import CollectorRegistry

from router.app.observers.audit_watch import AuditWatch
from router.domain.alert import Condition
from router.telemetry import Telemetry
from tests.usecases.fakes.alerts import RecordedAlerts


@pytest.mark.parametrize("condition", [Condition.AUDIT_APPEND_SLOW, Condition.AUDIT_READ_SLOW])
def test_slow_audit_is_raised_and_resolved(condition: Condition) -> None:
    """5 % of the calls above the bound, for ten looks; a single slow look says nothing."""
    telemetry, heard = Telemetry(CollectorRegistry()), RecordedAlerts()
    watch = AuditWatch(telemetry, heard, append_slow_ms=25, read_slow_ms=250)
    append = condition is Condition.AUDIT_APPEND_SLOW
    counted = telemetry.store_call_seconds.child("decide") if append else telemetry.audit_read_seconds

    def seconds(looks: int, slow: float) -> None:
        for _ in range(looks):
            for n in range(100):
                counted.observe(slow if n < 10 else 0.001)
            watch.tick()

    seconds(9, 0.9)
    assert heard.open == set()
    seconds(1, 0.9)
    assert heard.open == {condition}
    seconds(25, 0.001)
    assert heard.open == set()
