"""Faults of a Redis Cluster."""

import asyncio
from pathlib import Path

from redis.crc import key_slot

from tests.chaos.world import World
from tests.clusters import ClusterOfFleet, Move
from tests.fleet.harness import until
from tests.servers import ValkeyNode, to_its_end
from tests.survive.arena import Arena
from tests.survive.row import AGAIN, EVERYTHING, Row, Setup

_SEE = "redis-cluster"
_FAILOVER_S = 60
_MOVED = 16
"""Partitions that move, those of the load's tenants among them."""


def _cluster(ground: Arena) -> ClusterOfFleet:
    valkey = ground.fleet.valkey
    assert isinstance(valkey, ClusterOfFleet)
    return valkey


async def _asked(node: ValkeyNode, *words: str) -> str:
    return await asyncio.to_thread(node.ask, *words)


async def _failover(ground: Arena) -> None:
    """The node of the tenant `leased` is killed; its replica takes over, and the old node comes back as a replica."""
    cluster = _cluster(ground)
    slot = key_slot(ground.fleet.keys.tag(ground.fleet.keys.tenant("leased").partition))
    number = next(n for n, (first, last) in enumerate(cluster.set.SLOTS) if first <= slot <= last)
    dying, replica = cluster.set.nodes[number], cluster.replicas[number]
    loop = asyncio.get_running_loop()
    began = loop.time()
    await to_its_end(dying.kill)

    async def takes_over() -> bool:
        return "master" in await _asked(replica, "ROLE") and "cluster_state:ok" in await _asked(
            replica, "CLUSTER", "INFO"
        )

    await until(takes_over, _FAILOVER_S, "the replica takes over")
    switched = loop.time()
    await asyncio.sleep(2)
    await to_its_end(dying.start)

    async def follows() -> bool:
        return "connected" in await _asked(dying, "ROLE")

    await until(follows, _FAILOVER_S, "the old node is a replica")
    back_s = loop.time() - began
    ground.told.append(
        f"the replica took over after {switched - began:.1f} s; the old node followed after {back_s:.1f} s"
    )


async def _resharded(ground: Arena) -> None:
    """The slots of all tenants' partitions, and of some more, go to the next node, one after the other."""
    cluster, keys = _cluster(ground), ground.fleet.keys
    mine = {keys.tenant(tenant).partition for tenant in ground.world.tenants}
    others = [p for p in range(keys.partitions) if p not in mine]
    partitions = [*sorted(mine), *others[: _MOVED - len(mine)]]
    longest = 0.0
    for partition in partitions:
        move = Move(cluster.set, key_slot(keys.tag(partition)))
        began = asyncio.get_running_loop().time()
        for step in (move.begin, move.keys, move.end):
            await to_its_end(step)
        longest = max(longest, asyncio.get_running_loop().time() - began)
        await asyncio.sleep(0.2)
    ground.told.append(f"{len(partitions)} slots moved, the slowest within {longest * 1000:.0f} ms")


def _with(waits_for: int, *, replicas: bool = True) -> Setup:
    def env(world: World) -> dict[str, str]:
        assert isinstance(world.fleet.valkey, ClusterOfFleet)
        return world.fleet.valkey.pods_env | {"ROUTER_WAIT_REPLICAS": str(waits_for)}

    def server(folder: Path) -> ClusterOfFleet:
        return ClusterOfFleet(folder, replicas=replicas)

    return Setup(valkey=server, servers_env=env)


ROWS = (
    Row(
        name="redis.cluster_failover_waiting",
        fault="a node of a Redis Cluster killed, one replica each, `ROUTER_WAIT_REPLICAS=1`; it comes back 2 s after",
        promise="`unavailable` for its tenants until it is back as a replica; no accepted request is lost",
        see=_SEE,
        act=_failover,
        recover_s=15.0,
        setup=_with(1),
    ),
    Row(
        name="redis.cluster_failover",
        fault="the same without waiting for replicas",
        promise="`unavailable` until its replica has taken over; what the replica had not is decided anew",
        see=_SEE,
        act=_failover,
        recover_s=15.0,
        exempt=EVERYTHING,
        setup=_with(0),
    ),
    Row(
        name="redis.cluster_resharded",
        fault="slots of a Redis Cluster moved to other nodes, those of all tenants among them",
        promise="some requests are `unavailable` while their slot moves; nothing is lost or doubled",
        see=_SEE,
        act=_resharded,
        refused=AGAIN,
        setup=_with(0, replicas=False),
    ),
)
