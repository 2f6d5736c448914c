"""The README's proof against any fleet: `python -m tests.e2e.prove --nats URL --redis URL --pods N`."""

import argparse
import asyncio
import sys

from router.local.audit import audit_reader
from router.local.client import Caller
from router.local.proof import Step, prove
from router.local.view import View
from tests.e2e.steps import must

TENANTS = ["acme", "globex", "initech"]
WORKER_S = 30.0


async def proof(nats: str, redis: str, pods: int) -> list[Step]:
    """All steps; the fleet has the example policies and an example worker.

    :raises Failed: there is no worker.
    """
    async with Caller(nats) as caller, audit_reader(redis) as read_audit:
        must(await caller.workers_wait(WORKER_S), "no worker asks for assignments")
        return [step async for step in prove(caller, TENANTS, pods, read_audit)]


async def proven(nats: str, redis: str, pods: int) -> str:
    """In one sentence.

    :raises Failed: a step was not seen.
    """
    steps = await proof(nats, redis, pods)
    View().proof(steps)
    last = steps[-1]
    must(last.ok, f"not proven: {last.name} ({last.tenant}): {last.seen}")
    return f"{len(steps)} steps seen"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--pods", type=int, default=2)
    given = parser.parse_args()
    print(asyncio.run(proven(given.nats, given.redis, given.pods)), file=sys.stderr)
