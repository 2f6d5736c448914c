"""`router local`: start the fleet, prove it, print the READY line, and serve until asked to stop."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

import orjson

from router.local.audit import audit_reader
from router.local.client import Caller
from router.local.fleet import Fleet, Options
from router.local.processes import LocalError
from router.local.proof import Step, prove
from router.local.view import View

PROVEN, NOT_PROVEN, FAILED, INTERRUPTED = 0, 1, 4, 130

WORKER_S = 20.0

T = TypeVar("T")


async def run_local(options: Options, *, once: bool) -> int:
    """Bring the fleet up, prove it, and (unless `once`) serve until SIGINT or SIGTERM.

    Returns the exit code: 0 proven and stopped in order, 1 a step of the proof was not seen, 4 the fleet could not
    start or continue, 130 asked to stop before the end of the proof. Every process that was started is ended.
    """
    view = View()
    stop = asyncio.Event()
    proven = asyncio.Event()
    work = asyncio.create_task(_work(options, view, stop, proven=proven, once=once))

    def asked() -> None:
        # Only the first signal counts: a second one must not interrupt the clean stop.
        if not stop.is_set():
            stop.set()
            if not proven.is_set():
                work.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked)
    try:
        return await work
    except asyncio.CancelledError:
        view.failure("stopped before the end of the proof")
        return INTERRUPTED
    except LocalError as e:
        view.failure(str(e))
        return FAILED


async def _work(options: Options, view: View, stop: asyncio.Event, *, proven: asyncio.Event, once: bool) -> int:
    with view.working():
        fleet = Fleet(options, view.say)
        async with fleet:
            watch = asyncio.create_task(fleet.watch())
            try:
                steps = await _beside(watch, _steps(fleet, view))
                view.pause()
                view.proof(steps)
                if not steps[-1].ok:
                    failed = steps[-1]
                    view.failure(
                        f"not proven: {failed.name} ({failed.tenant}): {failed.seen}\nlogs: {fleet.data}/*.log"
                    )
                    return NOT_PROVEN
                proven.set()
                if once:
                    view.say(f"all {len(steps)} steps were seen: stopping")
                    return PROVEN
                fleet.publish_ready()
                view.line(f"READY {orjson.dumps(fleet.ready()).decode()}")
                await _beside(watch, stop.wait())
                view.say("stopping")
            finally:
                watch.cancel()
    return PROVEN


async def _steps(fleet: Fleet, view: View) -> list[Step]:
    steps: list[Step] = []
    view.say("proving")
    async with Caller(fleet.nats_url) as caller, audit_reader(fleet.redis_url) as read_audit:
        if not await caller.workers_wait(WORKER_S):
            raise LocalError(f"no worker asks for assignments; see {fleet.data}/worker.log")
        async for step in prove(caller, fleet.tenants, len(fleet.pods), read_audit):
            steps.append(step)
            view.step(f"proving: {step.tenant}, {step.name}")
    return steps


async def _beside(watch: asyncio.Task[None], act: Coroutine[object, object, T]) -> T:
    """The result of `act`. If the supervision of the fleet ends first, its exception is raised."""
    task = asyncio.ensure_future(act)
    try:
        await asyncio.wait({watch, task}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})
