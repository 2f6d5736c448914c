"""A NATS server that leaves in order (SIGUSR2, lame duck): it closes every connection in turn, and ends."""

import asyncio
import os
import signal
from pathlib import Path

import orjson

from tests.fleet.conftest import Own
from tests.fleet.foreign import Foreign, Reply, task
from tests.fleet.harness import PLAIN, Fleet, until
from tests.servers import NatsProcess

TENANT = "acme"
EVERY_S = 0.005
LEAVES = "lame_duck_grace_period: 1s\nlame_duck_duration: 30s"


class Load:
    """A steady caller; `asked` has the request ids and their replies to come."""

    def __init__(self, caller: Foreign) -> None:
        self._caller = caller
        self.asked: dict[str, asyncio.Future[Reply]] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            request_id = f"r-{len(self.asked)}"
            self.asked[request_id] = await self._caller.send(orjson.dumps(task(TENANT, request_id)))
            await asyncio.sleep(EVERY_S)

    def unanswered(self) -> set[str]:
        """The requests without a reply; "no responders" is one."""
        return {request_id for request_id, reply in self.asked.items() if not reply.done()}


async def _leave_and_return(nats: NatsProcess) -> None:
    os.kill(nats.pid, signal.SIGUSR2)
    await asyncio.to_thread(nats.gone)
    await asyncio.to_thread(nats.start)


async def _decided(fleet: Fleet) -> set[str]:
    return {str(e.details["request_id"]) for e in await fleet.audit(TENANT)}


async def test_no_decided_request_stays_without_its_answer(own: Own, tmp_path: Path) -> None:
    """Twice: every request that a pod has decided is answered, also where the server closed the caller's connection or
    the pod's between the two. What the server never gave to a pod has no decision.
    """
    nats = NatsProcess(tmp_path / "leaving", extra=LEAVES)
    fleet, caller = await own(pods=2, nats=nats, policies={TENANT: {"default": PLAIN}})
    load = Load(caller)
    asking = asyncio.create_task(load.run())
    for _ in range(2):
        before = len(load.asked)
        await until(lambda before=before: len(load.asked) > before + 100, 10, "load")  # type: ignore[misc]
        await _leave_and_return(nats)
        await until(lambda: caller.client.is_connected, 20, "the caller is back")
        await asyncio.gather(*(pod.until_ready() for pod in fleet.pods))
        before = len(load.asked)
        await until(lambda before=before: len(load.asked) > before + 100, 10, "load after it")  # type: ignore[misc]
    asking.cancel()

    async def all_answered() -> bool:
        return not load.unanswered() & await _decided(fleet)

    await until(all_answered, 15, "every decided request has its answer")
    assert len(load.asked) > 500
    kept = [pod.logged("bus.error") for pod in fleet.pods]
    assert all("may be lost" not in line["message"] for lines in kept for line in lines)
