"""A failover of Redis Sentinel."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.chaos.world import World
from tests.sentinels import MASTER, SentinelSet
from tests.servers import ValkeyProcess, to_its_end
from tests.survive.arena import Arena
from tests.survive.row import EVERYTHING, Row, Setup

_SWITCH_S = 60
_SEE = "tls-and-login-of-redis"


class _Primary(ValkeyProcess):
    """The primary of a set with two replicas and three sentinels; `follow` makes it the one that is named now."""

    def __init__(self, data: Path, replicas: int = 2) -> None:
        super().__init__(data)
        self.set = SentinelSet(data, replicas=replicas)

    def start(self) -> Self:
        """The whole set."""
        self.set.__enter__()
        return self.follow()

    def follow(self) -> Self:
        """From now on this is the server that the sentinels name."""
        server = self.set.server(self.set.named())
        self.port, self.process = server.port, server.process
        return self

    def stop(self) -> None:
        """The whole set."""
        self.set.__exit__()
        self.process = None


def _with(waits_for: int, valkey: Callable[[Path], _Primary] = _Primary) -> Setup:
    def env(world: World) -> dict[str, str]:
        valkey = world.fleet.valkey
        assert isinstance(valkey, _Primary)
        return {
            "ROUTER_REDIS_SENTINELS": ",".join(f"{host}:{port}" for host, port in valkey.set.addresses),
            "ROUTER_REDIS_SENTINEL_MASTER": MASTER,
            "ROUTER_WAIT_REPLICAS": str(waits_for),
        }

    return Setup(valkey=valkey, servers_env=env)


async def _killed(ground: Arena) -> None:
    """The primary is killed; the row's fault ends when the sentinels name another one."""
    valkey = ground.fleet.valkey
    assert isinstance(valkey, _Primary)
    first = valkey.port
    await to_its_end(valkey.set.server(first).kill)
    async with asyncio.timeout(_SWITCH_S):
        while await asyncio.to_thread(valkey.set.named) == first:  # noqa: ASYNC110 - sentinels have no event for us
            await asyncio.sleep(0.02)
    valkey.follow()
    await ground.fleet.reopen_store()


async def _killed_and_back(ground: Arena) -> None:
    """With one replica nothing is left to wait for until the old primary is back."""
    valkey = ground.fleet.valkey
    assert isinstance(valkey, _Primary)
    first = valkey.set.server(valkey.port)
    began = asyncio.get_running_loop().time()
    await _killed(ground)
    await asyncio.sleep(3)
    await to_its_end(first.start)
    away_s = asyncio.get_running_loop().time() - began
    ground.told.append(f"the old primary was away for {away_s:.1f} s, and requests were refused for as long")


ROWS = (
    Row(
        name="redis.sentinel_waiting",
        fault="the primary killed, two replicas behind three sentinels, `ROUTER_WAIT_REPLICAS=1`",
        promise="`unavailable` until the sentinels have switched; no accepted request is lost",
        see=_SEE,
        act=_killed,
        setup=_with(1),
    ),
    Row(
        name="redis.sentinel_one_replica",
        fault="the same with one replica; the old primary comes back 3 s after the switch",
        promise="`unavailable` until the old primary is back as a replica; no accepted request is lost",
        see=_SEE,
        act=_killed_and_back,
        recover_s=15.0,
        setup=_with(1, lambda folder: _Primary(folder, replicas=1)),
    ),
    Row(
        name="redis.sentinel",
        fault="the same without waiting for replicas",
        promise="`unavailable` until the sentinels have switched; decisions that no replica had are made again",
        see=_SEE,
        act=_killed,
        exempt=EVERYTHING,
        setup=_with(0),
    ),
)
