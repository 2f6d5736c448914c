"""Faults of Redis."""

import asyncio
import shutil

from tests.fleet.harness import until
from tests.servers import ValkeyProcess, to_its_end
from tests.survive.arena import Arena
from tests.survive.row import AGAIN, ALWAYS, EVERYSEC, EVERYTHING, Act, Row, Setup

_AWAY = "routerstoreaway"


async def _frozen(ground: Arena) -> None:
    ground.fleet.valkey.freeze()
    await asyncio.sleep(3)
    ground.fleet.valkey.thaw()


async def _hole(ground: Arena) -> None:
    await ground.world.redis.hole(3, upstream=True)


async def _killed(ground: Arena) -> None:
    await to_its_end(ground.fleet.valkey.kill)
    await asyncio.sleep(1)
    await to_its_end(ground.fleet.valkey.start)


def _slow(delay_s: float) -> Act:
    async def act(ground: Arena) -> None:
        await ground.world.redis.delay(delay_s, 5)

    return act


async def _full(ground: Arena) -> None:
    await ground.fleet.redis("CONFIG", "SET", "maxmemory", "1mb")
    await asyncio.sleep(3)
    await ground.fleet.redis("CONFIG", "SET", "maxmemory", "0")


async def _read_only(ground: Arena) -> None:
    await ground.fleet.redis("REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(3)
    await ground.fleet.redis("REPLICAOF", "NO", "ONE")


async def _flushed_scripts(ground: Arena) -> None:
    for _ in range(5):
        await ground.fleet.redis("FUNCTION", "FLUSH", "SYNC")
        await ground.fleet.redis("SCRIPT", "FLUSH", "SYNC")
        await asyncio.sleep(0.5)


async def _flushed(ground: Arena) -> None:
    await ground.fleet.redis("FLUSHALL", "SYNC")


async def _evicting(ground: Arena) -> None:
    await ground.fleet.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:

        async def said() -> bool:
            return any([b"eviction" in (await pod.http("/readyz"))[1] for pod in ground.pods])

        await ground.expect("readyz names the eviction policy", until(said, 40, "named"))
    finally:
        await ground.fleet.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def _restored(ground: Arena) -> None:
    """The log of 3 s ago is put back, as a backup would be."""
    data = ground.fleet.valkey.data
    copy = ground.fleet.folder / "backup"
    shutil.copytree(data / "appendonlydir", copy)
    await asyncio.sleep(3)
    await to_its_end(ground.fleet.valkey.kill)
    shutil.rmtree(data / "appendonlydir")
    shutil.copytree(copy, data / "appendonlydir")
    await to_its_end(ground.fleet.valkey.start)


async def _pods_replaced(ground: Arena) -> None:
    for pod in list(ground.pods):
        await pod.stop()
        await pod.start()


ROWS = (
    Row(
        name="redis.frozen",
        fault="Redis frozen for 3 s",
        promise="`unavailable` within four store deadlines, then served again; nothing is lost",
        see=_AWAY,
        act=_frozen,
        short=True,
    ),
    Row(
        name="redis.hole",
        fault="packets to Redis vanish for 3 s",
        promise="`unavailable` within four store deadlines, then served again; nothing is lost",
        see=_AWAY,
        act=_hole,
    ),
    Row(
        name="redis.killed",
        fault="Redis killed, `appendfsync always`",
        promise="`unavailable` until it is back; nothing accepted is lost",
        see=_AWAY,
        act=_killed,
        short=True,
    ),
    Row(
        name="redis.killed_everysec",
        fault="Redis killed, `appendfsync everysec`",
        promise="`unavailable` until it is back; a killed process loses nothing, a lost host up to a second",
        see=_AWAY,
        act=_killed,
        setup=Setup(valkey=lambda folder: ValkeyProcess(folder, args=EVERYSEC)),
    ),
    Row(
        name="redis.slow_30",
        fault="30 ms more to Redis in each direction",
        promise="served, with the latency of Redis",
        see="routerstoreslow",
        act=_slow(0.03),
        served=0.9,
    ),
    Row(
        name="redis.slow_80",
        fault="80 ms more in each direction",
        promise="served, with the latency of Redis",
        see="routerstoreslow",
        act=_slow(0.08),
        served=0.5,
    ),
    Row(
        name="redis.slow_200",
        fault="200 ms more in each direction, above the store's deadline",
        promise="`unavailable` within four store deadlines; nothing is lost or doubled",
        see="routerstoreslow",
        act=_slow(0.2),
    ),
    Row(
        name="redis.full",
        fault="Redis full (`maxmemory` reached)",
        promise="`unavailable` while it refuses writes; then served",
        see="routerstorefull",
        act=_full,
        short=True,
    ),
    Row(
        name="redis.read_only",
        fault="Redis read-only after a demotion",
        promise="`unavailable` while it refuses writes; then served",
        see=_AWAY,
        act=_read_only,
    ),
    Row(
        name="redis.scripts_flushed",
        fault="FUNCTION FLUSH and SCRIPT FLUSH, five times",
        promise="no caller notices: the next call loads the scripts again",
        see=_AWAY,
        act=_flushed_scripts,
        served=1.0,
        short=True,
    ),
    Row(
        name="redis.flushed",
        fault="FLUSHALL",
        promise="policies are written again from their files within seconds; all other data is lost",
        see="routerstorereseeded",
        act=_flushed,
        refused=AGAIN | {"policy_not_found"},
        recover_s=15.0,
        exempt=EVERYTHING,
    ),
    Row(
        name="redis.restored",
        fault="Redis restored from a copy that is 3 s old",
        promise="served again; later decisions are made again, and may be metered again",
        see="back-up-and-restore",
        act=_restored,
        exempt=EVERYTHING,
    ),
    Row(
        name="redis.evicting",
        fault="the eviction policy changed to `allkeys-lru`",
        promise="service continues, and `/readyz` reports the policy",
        see=_AWAY,
        act=_evicting,
        served=1.0,
    ),
    Row(
        name="redis.config_refused",
        fault="pods replaced where Redis blocks CONFIG",
        promise="no caller notices: nothing needs CONFIG",
        see="run-a-pod",
        act=_pods_replaced,
        served=0.98,
        setup=Setup(valkey=lambda folder: ValkeyProcess(folder, args=(*ALWAYS, "--rename-command", "CONFIG", ""))),
    ),
)
