"""Clocks that jump."""

import asyncio
from pathlib import Path

from tests.clocks import MovedClock
from tests.fleet.harness import until
from tests.servers import ValkeyProcess
from tests.survive.arena import Arena
from tests.survive.load import BOUNDED, OK, WINDOW_MS
from tests.survive.row import ALWAYS, Row, Setup

_JUMP_S = 7_200
_EXPIRED = frozenset(
    {
        "above the limit",
        "tasks dispatched = ended",
        "successes settled or reported = usage events",
        "usage of no success",
    }
)
"""Of requests that met a step forward: windows begin anew, audit ids carry the time ahead, and records that expired
show neither the end of their task nor that its usage was earned. What is asked after the step is judged in full."""


class _MovedValkey(ValkeyProcess):
    def __init__(self, data: Path) -> None:
        super().__init__(data, args=ALWAYS)
        self.clock = MovedClock(data)
        self.env = self.clock.env


async def _ahead_and_back(ground: Arena) -> None:
    clock = _clock(ground)
    clock.move(_JUMP_S)
    await asyncio.sleep(3)
    clock.move(0)
    await _admits_again(ground)


async def _back(ground: Arena) -> None:
    clock = _clock(ground)
    clock.move(-_JUMP_S)
    await _admits_again(ground)
    clock.move(0)
    await asyncio.sleep(1)


def _clock(ground: Arena) -> MovedClock:
    valkey = ground.fleet.valkey
    assert isinstance(valkey, _MovedValkey)
    return valkey.clock


async def _admits_again(ground: Arena) -> None:
    """The limit of `bounded` counts no charge longer than one window after a step."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(WINDOW_MS / 1000)
    before, began = ground.load.bounded[OK], loop.time()
    await ground.expect("`bounded` is admitted again", until(lambda: ground.load.bounded[OK] > before, 60, "admitted"))
    took = loop.time() - began
    ground.check(f"`{BOUNDED}` is admitted again after one window ({took:.1f} s)", took <= 3 + ground.slack_s)


ROWS = (
    Row(
        name="redis.clock_ahead",
        fault="Redis' clock 2 h ahead for 3 s, then right again",
        promise="limits admit again within a window; units that the step released stay released",
        see="when-redis-clock-steps",
        act=_ahead_and_back,
        exempt=_EXPIRED,
        setup=Setup(valkey=_MovedValkey),
    ),
    Row(
        name="redis.clock_back",
        fault="Redis' clock 2 h back for 5 s, then right again",
        promise="limits admit again within a window; units that the step released stay released",
        see="when-redis-clock-steps",
        act=_back,
        exempt=_EXPIRED,
        setup=Setup(valkey=_MovedValkey),
    ),
)
