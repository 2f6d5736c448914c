"""A message that repeats while a condition lasts is logged at its beginning, then once a minute."""

from router.log_throttle import LogThrottle
from tests.fakes.clock import Clock


def test_once_a_minute_with_the_number_of_what_was_left_out() -> None:
    """At once, not again within the minute, then with how many there were."""
    clock = Clock(5.0)
    throttle = LogThrottle(clock)
    assert [throttle.due() for _ in range(4)] == [0, None, None, None]
    clock.now += 59.9
    assert throttle.due() is None
    clock.now += 0.1
    assert throttle.due() == 4
    assert throttle.due() is None


def test_another_thing_is_said_at_once() -> None:
    """Each has its own minute."""
    throttle = LogThrottle(Clock(5.0))
    assert [throttle.due(x) for x in ("a", "b", "a", "b")] == [0, 0, None, None]


def test_after_its_end_it_begins_anew() -> None:
    """The next outage is news."""
    throttle = LogThrottle(Clock(5.0))
    assert (throttle.due(), throttle.due()) == (0, None)
    throttle.over()
    assert throttle.due() == 0


def test_it_remembers_only_so_many() -> None:
    """However many different texts there are; what is forgotten is said again, not kept back."""
    throttle = LogThrottle(Clock(5.0))
    assert [throttle.due(str(n)) for n in range(1000)] == [0] * 1000
    assert throttle.due("999") is None
    assert throttle.due("0") == 0
