"""What `bench.compare` makes of its rounds."""

import pytest

from bench.compare import AFTER, AGAIN, BEFORE, CompareFailed, Round, checked_out, compare

TOLERANCE = 1.03


def a_round(before: float, again: float, after: float) -> Round:
    """A round in which pod and Redis cost the same."""
    cost = {BEFORE: before, AGAIN: again, AFTER: after}
    return {side: {"256": {"redis": us, "pod": us}} for side, us in cost.items()}


@pytest.mark.parametrize(
    ("again", "after", "holds"),
    [(10, 10.2, True), (10, 10.4, False), (10.6, 10.4, True), (9.4, 10.4, True), (10, 5, True)],
    ids=["within 3 %", "above 3 %", "same code differs by more", "also when it is less", "cheaper"],
)
def test_a_change_may_cost_the_tolerance_or_what_the_same_code_differs_by(
    again: float, after: float, holds: bool
) -> None:
    """Whichever is larger; costing less never fails."""
    redis, pod = compare([a_round(10, again, after)])
    assert (redis.holds(TOLERANCE), pod.holds(TOLERANCE)) == (holds, holds)


def test_a_ratio_is_the_median_of_ratios_within_a_round() -> None:
    """A machine that slows down for a round slows down all sides of it."""
    redis, _ = compare([a_round(10, 10, 11), a_round(40, 40, 44), a_round(12, 12, 36)])
    assert (redis.before, redis.after, redis.same) == (12, 36, 1)
    assert redis.ratio == pytest.approx(1.1)


def test_a_base_that_does_not_exist_is_named() -> None:
    """Before anything is measured."""
    with pytest.raises(CompareFailed, match="no-such-revision"), checked_out("no-such-revision"):
        pass
