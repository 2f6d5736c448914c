"""Failed checks of the streams: a part that is off, once they go on for a while."""

import pytest
from prometheus_client import CollectorRegistry

from router.app.observers.stream_watch import StreamWatch
from router.bus.streams.specs import Ensured
from router.domain.degraded import Degradable
from router.edge.readiness import Readiness
from router.telemetry import Telemetry
from tests.usecases.fakes.alerts import RecordedAlerts


class Room:
    """A pod whose streams were fine at the first check."""

    def __init__(self) -> None:
        self.readiness = Readiness(["streams"])
        self.watch = StreamWatch(Telemetry(CollectorRegistry(), (), ()), self.readiness, RecordedAlerts())
        self.good()

    def good(self) -> None:
        """A complete check that finds nothing."""
        self.watch.checked(Ensured(), {})


@pytest.mark.parametrize("off", [True, False])
def test_three_failed_checks_in_a_row_are_reported(off: bool) -> None:
    """With the last reason, and the pod stays ready; the next complete check ends it."""
    room = Room()
    for number in range(5):
        room.watch.failed(f"fault {number}", off)
        reported = room.readiness.degraded().get(Degradable.STREAM_CHECKS)
        assert reported == (None if number < 2 else f"fault {number}")
        assert room.readiness.ready
    room.good()
    assert room.readiness.degraded() == {}


def test_failed_checks_between_good_ones_are_not() -> None:
    """A reconnect, or a new leader."""
    room = Room()
    for _ in range(10):
        room.watch.failed("no leader", False)
        room.watch.failed("no leader", False)
        room.good()
        assert room.readiness.degraded() == {}
