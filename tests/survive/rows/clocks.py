"""Clocks that jump."""

import asyncio
from pathlib import Path

from tests.clocks import MovedClock
from tests.servers import ValkeyProcess
from tests.survive.arena import Arena
from tests.survive.load import BOUNDED, OK
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
"""What a step forward lets expire, and what moments of the audit then say, is not promised: see the table of steps."""


class _MovedValkey(ValkeyProcess):
    def __init__(self, data: Path) -> None:
        super().__init__(data, args=ALWAYS)
        self.clock = MovedClock(data)
        self.env = self.clock.env


async def _ahead_and_back(ground: Arena) -> None:
    valkey = ground.fleet.valkey
    assert isinstance(valkey, _MovedValkey)
    valkey.clock.move(_JUMP_S)
    await asyncio.sleep(3)
    valkey.clock.move(0)
    await asyncio.sleep(2.5)  # a window of `bounded`
    before = ground.load.bounded[OK]
    await asyncio.sleep(3)
    admitted = ground.load.bounded[OK] - before
    ground.check(f"`{BOUNDED}` is admitted again after one window ({admitted} in 3 s)", admitted > 0)


async def _back(ground: Arena) -> None:
    valkey = ground.fleet.valkey
    assert isinstance(valkey, _MovedValkey)
    valkey.clock.move(-_JUMP_S)
    await asyncio.sleep(2.5)
    before = ground.load.bounded[OK]
    await asyncio.sleep(3)
    admitted = ground.load.bounded[OK] - before
    ground.check(f"`{BOUNDED}` is admitted again after one window ({admitted} in 3 s)", admitted > 0)
    valkey.clock.move(0)
    await asyncio.sleep(1)


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
