"""Faults of NATS."""

import asyncio
import signal
import socket
from pathlib import Path

from nats.js.errors import NotFoundError

from tests.chaos.world import CONSUMERS, insisted
from tests.fleet.foreign import USAGE
from tests.fleet.harness import until
from tests.servers import NatsProcess, to_its_end
from tests.survive.arena import Arena
from tests.survive.row import Act, Row, Setup

_AWAY = "routernatsaway"
_TIMES = 20


async def _frozen(ground: Arena) -> None:
    ground.fleet.nats.freeze()
    await asyncio.sleep(3)
    ground.fleet.nats.thaw()


async def _hole(ground: Arena) -> None:
    await ground.world.nats.hole(3, upstream=False)


async def _cut(ground: Arena) -> None:
    for _ in range(_TIMES):
        await ground.world.nats.end(None, after_bytes=100, upstream=False, hold_s=0.1, half=False)
        await asyncio.sleep(0.3)


def _killed(times: int) -> Act:
    async def act(ground: Arena) -> None:
        for _ in range(times):
            await to_its_end(ground.fleet.nats.kill)
            await to_its_end(ground.fleet.nats.start)
            await asyncio.sleep(0.3)

    return act


async def _lame_duck(ground: Arena) -> None:
    """`nats-server --signal ldm`: no new connections, then clients are closed one by one, then it ends."""
    process = ground.fleet.nats.process
    assert process is not None
    process.send_signal(signal.SIGUSR2)
    await until(lambda: process.poll() is not None, 90, "the lame duck has ended")
    ground.fleet.nats.process = None
    await to_its_end(ground.fleet.nats.start)


async def _stream_deleted(ground: Arena) -> None:
    js = ground.world.caller.client.jetstream()
    await insisted(lambda: js.delete_stream("ASSIGN"), NotFoundError)

    async def made_again() -> bool:
        try:
            await js.stream_info("ASSIGN")
        except NotFoundError:
            return False
        return True

    await ground.expect("a pod makes the stream again", until(made_again, 40, "made again"))


async def _consumers_deleted(ground: Arena) -> None:
    js = ground.world.caller.client.jetstream()
    for stream, name in CONSUMERS[1:]:
        await insisted(lambda s=stream, n=name: js.delete_consumer(s, n), NotFoundError)  # type: ignore[misc]
    await asyncio.sleep(3)


async def _stream_full(ground: Arena) -> None:
    await ground.world.to_stream("full", 4)


async def _stream_taken(ground: Arena) -> None:
    await ground.world.to_stream("overlap", 4)


async def _slow_consumer(ground: Arena) -> None:
    """Somebody subscribes to everything and never reads: the server's buffers for him fill."""
    with socket.create_connection(("127.0.0.1", ground.fleet.nats.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f'CONNECT {{"verbose":false}}\r\nSUB > 1\r\nSUB {USAGE} 2\r\n'.encode())
        await asyncio.sleep(5)


def _lame(folder: Path) -> NatsProcess:
    return NatsProcess(folder, extra="lame_duck_duration: '30s'\nlame_duck_grace_period: '200ms'")


ROWS = (
    Row(
        name="nats.frozen",
        fault="NATS frozen for 3 s",
        promise="no messages pass meanwhile; requests are answered afterwards, or repeated",
        see=_AWAY,
        act=_frozen,
        worst_s=5.0,
        short=True,
    ),
    Row(
        name="nats.hole",
        fault="packets from NATS to pods vanish for 3 s",
        promise="requests are answered afterwards, or repeated; nothing is lost",
        see=_AWAY,
        act=_hole,
        worst_s=5.0,
    ),
    Row(
        name="nats.cut",
        fault="every connection of pods cut in the middle of a message, 20 times",
        promise="callers repeat their requests; nothing is lost or doubled",
        see=_AWAY,
        act=_cut,
        worst_s=3.0,
        hung=400,
        recover_s=8.0,
    ),
    Row(
        name="nats.killed",
        fault="NATS killed",
        promise="callers repeat their requests; nothing is lost or doubled",
        see=_AWAY,
        act=_killed(1),
        worst_s=3.0,
        hung=50,
        recover_s=10.0,
        short=True,
    ),
    Row(
        name="nats.killed_20_times",
        fault="NATS killed 20 times",
        promise="callers repeat their requests; nothing is lost or doubled",
        see=_AWAY,
        act=_killed(_TIMES),
        worst_s=3.0,
        hung=50,
        recover_s=10.0,
    ),
    Row(
        name="nats.lame_duck",
        fault="NATS (one server) shuts down as a lame duck and comes back",
        promise="requests that it received are answered, some twice alike; then no messages pass until it is back",
        see=_AWAY,
        act=_lame_duck,
        recover_s=10.0,
        worst_s=5.0,  # an answer that is kept comes when the server is back
        # JetStream stops first: the event of an attempt whose deadline passes until it is back is not published again.
        exempt=frozenset({"requests with the same reply twice", "assignments without their event"}),
        setup=Setup(nats=_lame),
    ),
    Row(
        name="nats.stream_deleted",
        fault="the stream ASSIGN deleted",
        promise="decisions continue; a pod creates it again; its tasks get their next attempt",
        see="routerpublishesfail",
        act=_stream_deleted,
        recover_s=10.0,
        exempt=frozenset({"assignments without their event", "events of an assignment that came twice"}),
    ),
    Row(
        name="nats.consumers_deleted",
        fault="the durable consumers of acks and results deleted",
        promise="decisions continue; pods create them again; nothing is lost",
        see="routerconsumerstalled",
        act=_consumers_deleted,
        recover_s=10.0,
    ),
    Row(
        name="nats.stream_full",
        fault="the stream ASSIGN stores nothing for 4 s",
        promise="decisions continue; pushed tasks are `unavailable` until it stores messages again",
        see="routerpublishesfail",
        act=_stream_full,
        short=True,
    ),
    Row(
        name="nats.stream_taken",
        fault="another stream holds the subject of acks for 4 s",
        promise="decisions continue; nothing is lost",
        see="routerstreamsdiffer",
        act=_stream_taken,
        recover_s=15.0,
    ),
    Row(
        name="nats.slow_consumer",
        fault="a client subscribes to everything and never reads",
        promise="other callers notice nothing",
        see=_AWAY,
        act=_slow_consumer,
        served=1.0,
    ),
)
