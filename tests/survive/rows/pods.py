"""Faults of pods and workers."""

import asyncio
import resource
import shutil
import signal
import socket
import time
from pathlib import Path

import orjson

from tests.chaos.world import ROOT
from tests.clocks import MovedClock
from tests.fleet.foreign import DECIDE, task
from tests.survive.arena import Arena
from tests.survive.row import Act, Row, Setup

_UPGRADE = "upgrade-roll-back"
_IDLE = 1_000
_JUMP_S = 7_200


async def _killed(ground: Arena) -> None:
    await ground.pods[0].kill()
    await asyncio.sleep(1)
    await ground.pods[0].start()


async def _all_killed(ground: Arena) -> None:
    await asyncio.gather(*(pod.kill() for pod in ground.pods))
    await asyncio.gather(*(pod.start() for pod in ground.pods))


async def _terminated(ground: Arena) -> None:
    for pod in list(ground.pods):
        ground.check(f"{pod.name} ends with 0 after SIGTERM", await pod.stop() == 0)
        await pod.start()


def _stood_still(seconds: float) -> Act:
    async def act(ground: Arena) -> None:
        process = ground.pods[0].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(2)

    return act


async def _worker_killed(ground: Arena) -> None:
    worker = ground.world.workers[0]
    assert worker.process is not None
    worker.process.kill()
    await worker.process.wait()
    await asyncio.sleep(1)
    await worker.start()
    await asyncio.sleep(1)


async def _worker_frozen(ground: Arena) -> None:
    process = ground.world.workers[0].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(4)
    process.send_signal(signal.SIGCONT)


async def _idle_connections(ground: Arena) -> None:
    """1,000 connections to one pod's HTTP port, every second one with half a request head."""
    pod = ground.pods[0]
    held: list[socket.socket] = []
    try:
        for number in range(_IDLE):
            connection = socket.create_connection(("127.0.0.1", pod.port), timeout=5)
            held.append(connection)
            if number % 2:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: po")
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        for path in ("/livez", "/readyz", "/metrics"):
            began = time.monotonic()
            status, _ = await pod.http(path)
            took = time.monotonic() - began
            ground.check(
                f"{path} answers 200 within a second ({status}, {took:.2f} s)",
                status == 200 and took < 1 + ground.slack_s,
            )
    finally:
        for connection in held:
            connection.close()


async def _rolled(ground: Arena) -> None:
    """Four pods, one at a time, by a version whose scripts have other names; then back."""
    other = ground.fleet.folder / "other"
    for name in ("router", "lua"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    for script in (other / "lua").glob("*.lua"):
        script.write_text(script.read_text() + "\n-- another version\n")
    ours = [pod.environment for pod in ground.pods]
    for env in (ours[0] | {"PYTHONPATH": str(other)}, ours[0]):
        for pod in ground.pods:
            ground.check(f"{pod.name} ends with 0", await pod.stop() == 0)
            pod.environment = env
            await pod.start()


async def _clock_jumps(ground: Arena) -> None:
    """One pod's wall clock goes two hours ahead, two hours back, and right again."""
    pod = ground.pods[0]
    clock = MovedClock(ground.fleet.folder)
    await pod.stop()
    pod.environment = pod.environment | clock.env
    await pod.start()
    for seconds in (_JUMP_S, -_JUMP_S, 0):
        clock.move(seconds)
        await asyncio.sleep(2)


def _bound_memory(pid: int, more: int) -> None:
    """The process may take so many bytes more than it has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + more
    resource.prlimit(pid, resource.RLIMIT_AS, (bound, bound))


async def _out_of_memory(ground: Arena) -> None:
    """One pod may take 8 MB more and is sent requests of 900 KB, until it is replaced."""
    pod = ground.pods[0]
    assert pod.process is not None
    _bound_memory(pod.process.pid, 8_000_000)
    request = task("leased", "large", options={"metadata": {"text": "x" * 900_000}})
    client = ground.world.caller.client
    for number in range(60):
        await client.publish(DECIDE, orjson.dumps(request | {"request_id": f"large-{number}"}), reply="_INBOX.nobody")
        await asyncio.sleep(0.05)
    await pod.kill()
    await pod.start()


ROWS = (
    Row(
        name="pod.killed",
        fault="a pod killed",
        promise="callers of its requests repeat them and get one decision each; the other pods serve",
        see=_UPGRADE,
        act=_killed,
        worst_s=1.5,
        hung=60,
        recover_s=7.0,
        short=True,
    ),
    Row(
        name="pod.all_killed",
        fault="all pods killed at once",
        promise="callers repeat their requests; nothing accepted is lost or doubled",
        see="routerfleetdown",
        act=_all_killed,
        worst_s=3.0,
        hung=100,
        recover_s=10.0,
    ),
    Row(
        name="pod.terminated",
        fault="every pod in turn ended by SIGTERM and started again",
        promise="each request is answered by the pod that received it; no caller notices",
        see=_UPGRADE,
        act=_terminated,
        served=0.98,
        short=True,
    ),
    Row(
        name="pod.stood_still_5",
        fault="a pod stands still for 5 s (SIGSTOP)",
        promise="requests that it holds are answered when it continues, too old ones as overloaded; nothing hangs",
        see="routerloopblocked",
        act=_stood_still(5),
        worst_s=5.5,
        short=True,
    ),
    Row(
        name="pod.blocked_1",
        fault="a pod's event loop stands still for 1 s",
        promise="requests that it holds are answered when it continues; nothing hangs",
        see="routerloopblocked",
        act=_stood_still(1),
        worst_s=2.0,
    ),
    Row(
        name="pod.idle_http",
        fault="1,000 idle and half-sent connections to a pod's HTTP port",
        promise="probes are answered within a second; decisions continue",
        see="the-http-port",
        act=_idle_connections,
        served=0.99,
        short=True,
    ),
    Row(
        name="pod.rolled",
        fault="four pods replaced one at a time by a version with other scripts, and back",
        promise="each request is answered by the pod that received it; no caller notices",
        see=_UPGRADE,
        act=_rolled,
        served=0.98,
        setup=Setup(pods=4),
    ),
    Row(
        name="pod.clock_jumps",
        fault="a pod's clock jumps two hours ahead and back",
        promise="no caller notices: times of a task are those of Redis or the stream",
        see="look-at-it",
        act=_clock_jumps,
        served=0.98,
    ),
    Row(
        name="pod.out_of_memory",
        fault="a pod at its memory limit, under requests of 900 KB, then killed",
        promise="the other pods serve; callers of its requests repeat them",
        see=_UPGRADE,
        act=_out_of_memory,
        hung=60,
        recover_s=7.0,
        worst_s=3.0,
        exempt=frozenset({"bugs and unhandled errors in logs"}),
    ),
    Row(
        name="worker.killed",
        fault="a worker killed",
        promise="its tasks get their next attempt; each is metered once",
        see="routernoworkers",
        act=_worker_killed,
        served=1.0,
    ),
    Row(
        name="worker.frozen",
        fault="a worker frozen for 4 s, beyond the deadline of its tasks",
        promise="its tasks get their next attempt; each is metered once",
        see="routernoworkers",
        act=_worker_frozen,
        served=1.0,
        short=True,
    ),
)
