"""Ready means: every named condition holds."""

import pytest

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
    readiness.not_ok("bus", "draining")
    readiness.not_ok("bus", "draining")
    assert turns == [True, False]
