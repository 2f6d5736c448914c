"""A pod's memory does not grow with what it has seen: every cache is bounded, whatever names come."""

import asyncio
import gc
import itertools

import orjson
import psutil
import pytest
from nats.aio.msg import Msg

from tests.fleet.conftest import Own
from tests.fleet.foreign import DECIDE, task
from tests.fleet.harness import PLAIN, Fleet
from tests.nats_client import connect

TENANTS = 200
AT_ONCE = 200
POLICY = PLAIN | {
    "sticky": {"session_key": "session_id", "ttl": "10m"},
    "limits": [{"id": "u", "scope": "user", "resource": "requests", "limit": 1_000_000, "window": "60s"}],
}


class Crowd:
    """Callers whose requests, sessions, users and traces are ever new, of known tenants and of new unknown ones."""

    def __init__(self, url: str, tenants: list[str]) -> None:
        self._url, self._tenants = url, tenants
        self._numbers = itertools.count()
        self._room = asyncio.Semaphore(AT_ONCE)
        self.answered = 0
        self._goal = 0
        self._all = asyncio.Event()

    async def asks(self, count: int) -> None:
        """So many requests, each answered."""
        client = await connect(self._url)
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=self._replied)
        try:
            self._goal += count
            self._all.clear()
            for n in itertools.islice(self._numbers, count):
                await self._room.acquire()
                tenant = f"nobody-{n}" if n % 3 == 0 else self._tenants[n % len(self._tenants)]
                body = task(tenant, f"soak-{n}", context={"session_id": f"s{n}", "user_id": f"u{n}"}, trace_id=f"t{n}")
                await client.publish(DECIDE, orjson.dumps(body), reply=inbox)
            await asyncio.wait_for(self._all.wait(), 30)
        finally:
            await client.close()

    async def _replied(self, _message: Msg) -> None:
        self.answered += 1
        if self.answered == self._goal:
            self._all.set()
        self._room.release()


async def soaked(own: Own, warm: int, rounds: int, each: int) -> list[float]:
    """Megabytes of the pod after each round, beginning with the end of the warm-up."""
    policies = {f"tenant-{n}": {"default": POLICY} for n in range(TENANTS)}
    fleet: Fleet
    fleet, _ = await own(pods=1, policies=policies)
    process = fleet.pods[0].process
    assert process is not None
    crowd = Crowd(fleet.nats.url, list(policies))
    await crowd.asks(warm)
    sizes = [psutil.Process(process.pid).memory_info().rss / 1e6]
    for _ in range(rounds):
        await crowd.asks(each)
        sizes.append(psutil.Process(process.pid).memory_info().rss / 1e6)
    gc.collect()
    return sizes


@pytest.mark.long
async def test_memory_stays_level_once_the_caches_are_full(own: Own) -> None:
    """After 90,000 requests with new names (30,000 tenants, 60,000 users: more than any cache holds) 90,000 more cost
    less than 4 MB."""
    sizes = await soaked(own, warm=90_000, rounds=3, each=30_000)
    assert sizes[-1] - sizes[0] < 4, sizes


async def test_memory_grows_little_while_the_caches_fill(own: Own) -> None:
    """Names that are remembered are small: 6,000 new ones cost less than 12 MB."""
    sizes = await soaked(own, warm=2_000, rounds=1, each=6_000)
    assert sizes[-1] - sizes[0] < 12, sizes
