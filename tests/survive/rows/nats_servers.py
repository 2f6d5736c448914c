"""A NATS of three servers that loses one, and one server that loses a file."""

import asyncio

from tests.chaos.world import World
from tests.nats_clusters import NatsCluster
from tests.servers import to_its_end
from tests.survive.arena import Arena
from tests.survive.row import Row, Setup

_AWAY_S = 8


async def _leader_lost(ground: Arena) -> None:
    """The server that leads ASSIGN is killed, and comes back after the others have elected another leader."""
    cluster = ground.fleet.nats
    assert isinstance(cluster, NatsCluster)
    lost = await cluster.leader("ASSIGN")
    await to_its_end(lost.kill)
    await asyncio.sleep(_AWAY_S)
    leader = await cluster.leader("ASSIGN")
    ground.check("another server leads ASSIGN", leader is not lost)
    await to_its_end(lost.start)


async def _file_lost(ground: Arena) -> None:
    """The messages of ASSIGN are deleted on the disk; the server notices it at its next start."""
    nats = ground.fleet.nats
    await to_its_end(nats.kill)
    lost = list((nats.data / "jetstream").glob("jetstream/*/streams/ASSIGN/msgs/*.blk"))
    for file in lost:
        file.unlink()
    ground.check("a file of ASSIGN was deleted", lost)
    await to_its_end(nats.start)


def _urls(world: World) -> dict[str, str]:
    assert isinstance(world.fleet.nats, NatsCluster)
    return {"ROUTER_NATS_URL": world.fleet.nats.urls, "ROUTER_STREAM_REPLICAS": "3"}


ROWS = (
    Row(
        name="nats.leader_lost",
        fault="of three NATS servers the one that leads the streams killed; it comes back 8 s later",
        promise="decisions continue; pushed tasks are `unavailable` until a leader is elected; nothing lost or doubled",
        see="routerpublishesfail",
        act=_leader_lost,
        worst_s=6.0,
        hung=60,
        recover_s=15.0,
        setup=Setup(nats=NatsCluster, servers_env=_urls, workers_direct=True),
    ),
    Row(
        name="nats.stream_file_lost",
        fault="NATS killed, and started without the messages of ASSIGN on its disk",
        promise="its tasks get their next attempt; nothing else is lost, and nothing is doubled",
        see="the-account-of-a-fleet-on-nats",
        act=_file_lost,
        worst_s=3.0,
        hung=50,
        recover_s=15.0,
    ),
)
