"""Redis time as a pod estimates it, and the steps of Redis' clock that it sees."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from router.store.decide.clock import RedisClock
from router.store.servers.nodes import SingleNode
from tests.store.harness import Ask, request
from tests.store.pods import PLAIN, Pod

HOUR = 3_600.0


class World:
    """A pod whose monotonic time, and a Redis whose clock, are set by hand."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.redis = 1_700_000_000.0
        self.steps: list[float] = []
        loop: Any = self
        self.clock = RedisClock(loop, self.steps.append)

    def time(self) -> float:
        """The loop's time."""
        return self.monotonic

    def wait(self, seconds: float) -> None:
        """Time passes for both."""
        self.monotonic += seconds
        self.redis += seconds

    def call(self, before: float = 0.0, after: float = 0.001) -> None:
        """A call that takes so long until Redis reads its time, and so long from there."""
        sent = self.monotonic
        self.wait(before)
        seconds, micros = divmod(round(self.redis * 1e6), 1_000_000)
        self.wait(after)
        self.clock.set(seconds, micros, sent)


@pytest.mark.parametrize("step", [1.2, 3.0, 600.0, 7_200.0, 86_400.0 * 365])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_is_seen_once_with_its_length(step: float, sign: int) -> None:
    """At the first reply after it; the estimate follows it."""
    world = World()
    world.call()
    world.wait(1)
    world.redis += sign * step
    world.call()
    world.wait(1)
    world.call()
    assert world.steps == [pytest.approx(sign * step * 1000, abs=5)]
    assert world.clock.now_ms() == pytest.approx(world.redis * 1000, abs=5)


def test_ahead_and_right_again_are_two_steps() -> None:
    """Two hours ahead for three seconds."""
    world = World()
    for step in (0.0, 7_200.0, -7_200.0):
        world.redis += step
        world.call()
        world.wait(3)
    assert [round(ms / 1000) for ms in world.steps] == [7_200, -7_200]


@pytest.mark.parametrize("step", [0.001, 0.05, 0.5, 0.9])
def test_less_than_a_second_is_no_step(step: float) -> None:
    """Neither way."""
    for sign in (1, -1):
        world = World()
        world.call()
        world.redis += sign * step
        world.call()
        assert world.steps == []


@given(
    calls=some.lists(some.tuples(some.floats(0, 20), some.floats(0, 20), some.floats(0, 30)), min_size=2, max_size=20)
)
def test_slow_replies_are_no_step(calls: list[tuple[float, float, float]]) -> None:
    """A frozen Redis, a slow network, a pod that stood still: however long, on the way there or back."""
    world = World()
    for before, after, between in calls:
        world.call(before, after)
        world.wait(between)
    assert world.steps == []


@pytest.mark.parametrize("ppm", [-500, 500])
def test_drift_is_no_step(ppm: int) -> None:
    """Hours without a reply, while NTP slews as fast as it may."""
    world = World()
    world.call()
    world.monotonic += 10 * HOUR
    world.redis += 10 * HOUR * (1 + ppm / 1e6)
    world.call()
    assert world.steps == []


def test_a_clock_that_was_forgotten_begins_anew() -> None:
    """There is nothing to compare with."""
    world = World()
    world.call()
    world.clock.forget()
    world.redis += HOUR
    world.call()
    assert world.steps == []


@pytest.mark.server
@pytest.mark.parametrize("error_ms", [-7_200_000.0, 5_000.0])
async def test_a_lane_reports_a_step(nodes: SingleNode, keys: Any, error_ms: float) -> None:
    """On a real server: the lane's estimate is wrong by so much, as if the clock had been stepped the other way."""
    steps: list[float] = []
    pod = Pod(nodes, keys)
    pod.hooks.on_clock_step = steps.append
    async with pod:
        await pod.submit(Ask(request("t", "first"), PLAIN))
        lane, _ = pod.lanes.of(0)
        assert lane._clock.offset_ms is not None
        lane._clock.offset_ms += error_ms
        lane._clock._highest_ms += error_ms
        await pod.submit(Ask(request("t", "second"), PLAIN))
        await pod.submit(Ask(request("t", "third"), PLAIN))
    assert steps == [pytest.approx(-error_ms, abs=900)]
