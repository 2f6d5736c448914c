"""Ready means: every named condition holds."""

import pytest

from router.domain.degraded import Degradable
from router.edge.readiness import Readiness


def test_nothing_holds_until_somebody_says_so() -> None:
    """A forgotten check is not a passed one."""
    readiness = Readiness(["store", "bus"])
    readiness.ok("bus")
    assert not readiness.ready
    assert readiness.reasons() == {"store": "not checked yet"}


def test_an_unknown_condition_is_a_bug() -> None:
    """A typo must not make a pod ready."""
    with pytest.raises(KeyError, match="store"):
        Readiness(["store"]).ok("stroe")


def test_turns_are_told_and_repeats_are_not() -> None:
    """The subscription opens once."""
    turns: list[bool] = []
    readiness = Readiness(["store", "bus"], turns.append)
    for act in (readiness.ok, readiness.ok):
        act("store")
        act("bus")
    readiness.not_ok("bus", reason="draining")
    readiness.not_ok("bus", reason="draining")
    assert turns == [True, False]


def test_a_part_that_is_off_takes_no_readiness() -> None:
    """It is listed with its latest reason, and the switch is reported once in each direction."""
    switches: list[tuple[Degradable, bool]] = []
    readiness = Readiness(["store"], switched=lambda part, off: switches.append((part, off)))
    readiness.ok("store")
    readiness.restore(Degradable.DISPATCH)
    readiness.degrade(Degradable.DISPATCH, "stream ASSIGN is missing")
    readiness.degrade(Degradable.DISPATCH, "stream ASSIGN is full")
    assert readiness.ready
    assert readiness.degraded() == {Degradable.DISPATCH: "stream ASSIGN is full"}
    readiness.restore(Degradable.DISPATCH)
    readiness.restore(Degradable.DISPATCH)
    assert readiness.degraded() == {}
    assert switches == [(Degradable.DISPATCH, True), (Degradable.DISPATCH, False)]


def test_a_part_is_off_until_all_who_reported_it_restore_it() -> None:
    """Each has its own reason; the first is shown, and the switch turns once."""
    switches: list[tuple[Degradable, bool]] = []
    readiness = Readiness(["store"], switched=lambda part, off: switches.append((part, off)))
    readiness.degrade(Degradable.ALERTS, "stream ALERT is missing")
    readiness.degrade(Degradable.ALERTS, "not permitted", by="permissions")
    readiness.restore(Degradable.ALERTS, by="nobody")
    assert readiness.degraded() == {Degradable.ALERTS: "stream ALERT is missing"}
    readiness.restore(Degradable.ALERTS)
    assert readiness.degraded() == {Degradable.ALERTS: "not permitted"}
    readiness.restore(Degradable.ALERTS, by="permissions")
    assert readiness.degraded() == {}
    assert switches == [(Degradable.ALERTS, True), (Degradable.ALERTS, False)]


def test_the_log_names_a_part_once_per_reason(caplog: pytest.LogCaptureFixture) -> None:
    """The same reason again is no further line, nor is one that comes and goes within a minute."""
    readiness = Readiness(["store"])
    for _ in range(3):
        readiness.degrade(Degradable.DISPATCH, "stream ASSIGN is missing")
        readiness.degrade(Degradable.DISPATCH, "stream ASSIGN is missing")
        readiness.restore(Degradable.DISPATCH)
    lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert lines == ["dispatch is off: stream ASSIGN is missing"]
