"""`python -m bench.store.due [--tenants N] [--each N]`: what a sweeper's look costs Redis when very much is to be done.

Fills the due sets as decisions do (one sorted set a partition, whoever the tenant is), and asks for due tasks as pods
do: first with everything due later, as it is when all goes well, then with everything due now.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from redis import Redis
from rich.console import Console

from bench.processes import HOST, BenchFailed, Placement, start_valkey
from bench.store.memory import used_memory
from router.domain.ids import decision_id, idempotency_name, partition_of, task_id
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.tasks.store import RedisTasks
from router.usecases.tasks.sweep import CLAIM_MS, MAXIMUM

_CHUNK = 5_000
_LATER_MS = 120_000  # below ROUTER_DEADLINE_MAX: what is due later than that was due before a clock stepped back
_LOOKS = 200


class Look(Struct, frozen=True):
    """What looks came to: Redis CPU and round trip of one look in µs, and tasks it took."""

    what: str
    redis_us: float
    trip_us: float
    taken: float


def fill(redis: Redis, keys: Keys, tenants: int, each: int, due_ms: int) -> float:
    """So many tasks of so many tenants are due; returns bytes a task."""
    before = used_memory(redis)
    made = _members(keys, tenants, each)
    left = tenants * each
    while left:
        pipeline = redis.pipeline(transaction=False)
        for _, (key, member) in zip(range(min(left, _CHUNK)), made, strict=False):
            pipeline.zadd(key, {member: due_ms + random.randrange(1000)})  # noqa: S311 - spread, not a secret
        left -= len(pipeline.execute())
    return (used_memory(redis) - before) / (tenants * each)


def _members(keys: Keys, tenants: int, each: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(tenants):
        tenant = f"tenant-{number}"
        partition = partition_of(tenant, keys.partitions)
        for request in range(each):
            name = idempotency_name(tenant, "request", str(request))
            yield keys.due(partition), task_id(decision_id(partition, name, request.to_bytes(4)))


async def looks(redis: Redis, keys: Keys, url: str, what: str, count: int) -> Look:
    """Look so often, as a sweeper does."""
    nodes = SingleNode(url)
    await nodes.open()
    try:
        tasks = RedisTasks(keys, nodes)
        await tasks.claim(CLAIM_MS, maximum=MAXIMUM)  # loads the script
        before, started, taken = _script_us(redis), time.perf_counter(), 0
        for _ in range(count):
            taken += len((await tasks.claim(CLAIM_MS, maximum=MAXIMUM)).task_ids)
        took = time.perf_counter() - started
        return Look(what, (_script_us(redis) - before) / count, took * 1e6 / count, taken / count)
    finally:
        await nodes.close()


def _script_us(redis: Redis) -> float:
    stats = redis.info("commandstats")
    assert isinstance(stats, dict)
    return float(stats.get("cmdstat_evalsha", {"usec": 0})["usec"])


def measure(folder: Path, tenants: int, each: int) -> tuple[float, list[Look]]:
    """Bytes a due task, and the looks: an empty store, all due later, all due now."""
    process, port = start_valkey(folder, Placement.split().rest, appendfsync=None)
    try:
        redis, keys = Redis(HOST, port), Keys()
        url = f"redis://{HOST}:{port}/0"
        found = [asyncio.run(looks(redis, keys, url, "nothing at all", _LOOKS))]
        now_ms = int(time.time() * 1000)
        size = fill(redis, keys, tenants, each, now_ms + _LATER_MS)
        found.append(asyncio.run(looks(redis, keys, url, "all due later", _LOOKS)))
        redis.flushall()
        fill(redis, keys, tenants, each, now_ms - _LATER_MS)
        # No more than there is: the last looks must be as full as the first.
        count = max(1, min(_LOOKS, tenants * each // MAXIMUM - 1))
        found.append(asyncio.run(looks(redis, keys, url, "all due now", count)))
        return size, found
    finally:
        process.stop()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.store.due", description="What a sweeper's look costs Redis.")
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=100, help="tasks due for each")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="router-bench-") as folder:
            size, found = measure(Path(folder), arguments.tenants, arguments.each)
    except BenchFailed as fault:
        console.print(f"[red]{fault}[/]")
        return 2
    console.print(
        f"{arguments.tenants:,} tenants with {arguments.each} due each, {size:.0f} bytes a task; a look takes"
    )
    for look in found:
        per_task = f", {look.redis_us / look.taken:.1f} µs a task" if look.taken else ""
        console.print(
            f"  {look.what:<16} {look.redis_us:6.0f} µs of Redis CPU{per_task}, {look.trip_us:6.0f} µs in all, "
            f"{look.taken:.0f} tasks"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
