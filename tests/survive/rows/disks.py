"""Full disks."""

import asyncio
from pathlib import Path

from tests.disks import NatsOnDisk, ValkeyOnDisk
from tests.fleet.harness import until
from tests.servers import to_its_end
from tests.survive.arena import Arena
from tests.survive.row import ALWAYS, EVERYSEC, Row, Setup

_MEGABYTES = 24


async def _redis(ground: Arena) -> None:
    """With `always` the server ends itself when it cannot write its log, so it is started again when there is room."""
    valkey = ground.fleet.valkey
    assert isinstance(valkey, ValkeyOnDisk)
    process = valkey.process
    assert process is not None
    valkey.disk.fill()
    await asyncio.sleep(4)
    valkey.disk.free()
    if process.poll() is not None:
        await to_its_end(valkey.kill)
        await to_its_end(valkey.start)


async def _nats(ground: Arena) -> None:
    """The server may need a start of its own when there is room again: it does not try its streams anew."""
    nats = ground.fleet.nats
    assert isinstance(nats, NatsOnDisk)
    nats.disk.fill()

    async def said() -> bool:
        return all(["dispatch" in (await pod.readyz())[1].get("degraded", []) for pod in ground.pods])

    await ground.expect("readyz of every pod says that dispatch is off", until(said, 20, "said"))
    nats.disk.free()
    await to_its_end(nats.kill)
    await to_its_end(nats.start)


def _valkey(*args: str) -> Setup:
    def make(folder: Path) -> ValkeyOnDisk:
        return ValkeyOnDisk(folder, megabytes=_MEGABYTES, args=args)

    return Setup(valkey=make)


ROWS = (
    Row(
        name="redis.disk_full",
        fault="the disk of Redis full for 4 s, `appendfsync everysec`",
        promise="`unavailable` while it refuses writes; nothing accepted is lost",
        see="routerstorefull",
        act=_redis,
        setup=_valkey(*EVERYSEC),
    ),
    Row(
        name="redis.disk_full_always",
        fault="the disk of Redis full, `appendfsync always`: Redis stops",
        promise="`unavailable` until it is started again; nothing accepted is lost",
        see="routerstorefull",
        act=_redis,
        setup=_valkey(*ALWAYS),
    ),
    Row(
        name="nats.disk_full",
        fault="the disk of NATS full; the server is started again when there is room",
        promise="decisions continue; pushed tasks are `unavailable`; nothing accepted is lost",
        see="routerpublishesfail",
        act=_nats,
        recover_s=15.0,
        setup=Setup(nats=lambda folder: NatsOnDisk(folder, megabytes=_MEGABYTES)),
    ),
)
