"""A NATS server that leaves in order (SIGUSR2, lame duck): it closes every connection in turn, and ends."""

import asyncio
import os
import signal
from pathlib import Path

import orjson
from nats.aio.msg import Msg

from tests.fleet.conftest import Own
from tests.fleet.foreign import DECIDE, Foreign, Reply, task
from tests.fleet.frozen import frozen
from tests.fleet.harness import PLAIN, Fleet, until
from tests.servers import NatsProcess

TENANT = "acme"
PATIENT = {"ROUTER_STORE_DEADLINE": "30s", "ROUTER_DECIDE_WAIT": "60s"}
LEAVES = "lame_duck_grace_period: 1s\nlame_duck_duration: 30s"


async def _leave(nats: NatsProcess) -> None:
    os.kill(nats.pid, signal.SIGUSR2)
    await asyncio.to_thread(nats.gone)


def _all_know(fleet: Fleet) -> bool:
    return all("shutting down" in str(pod.logged("bus.away")) for pod in fleet.pods)


async def test_no_accepted_request_stays_without_its_answer(own: Own, tmp_path: Path) -> None:
    """The server closes the caller first: pods decide, and nobody hears them. The caller comes back after the pods, to
    the server's successor, and gets every answer.
    """
    nats = NatsProcess(tmp_path / "leaving", extra=LEAVES)
    fleet, caller = await own(pods=2, nats=nats, env=PATIENT, policies={TENANT: {"default": PLAIN}})
    inbox = caller.client.new_inbox()
    while {reply.pod for replies in caller.replies.values() for reply in replies} != {"pod-1", "pod-2"}:
        assert (await caller.ask(task(TENANT))).ok
    async with frozen(fleet):  # for less than a call's deadline
        for n in range(200):
            await caller.client.publish(DECIDE, orjson.dumps(task(TENANT)), reply=f"{inbox}.{n}")

        async def accepted() -> bool:
            return bool(await fleet.total("router_in_flight") == 200)

        await until(accepted, 20, "the pods have every request")
        leaving = asyncio.create_task(_leave(nats))
        await until(lambda: _all_know(fleet), 20, "the pods have the server's notice")
        await caller.client.close()
    await leaving
    await asyncio.to_thread(nats.start)
    await asyncio.gather(*(pod.until_ready() for pod in fleet.pods))
    async with Foreign(nats.url) as back:
        heard: dict[str, Reply] = {}

        async def hear(message: Msg) -> None:
            heard[message.subject] = Reply(message.data, message.headers or {})

        await back.client.subscribe(f"{inbox}.*", cb=hear)
        await until(lambda: len(heard) == 200, 20, f"every answer; there are {len(heard)}")
        assert all(reply.ok for reply in heard.values())
        assert (await back.ask(task(TENANT))).ok
