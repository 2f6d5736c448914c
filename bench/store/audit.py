"""How long a page of `router audit query` takes in a log of a million entries.

A page that finds little reads up to its bound of entries, in many small reads: the longest of them, round trip and
parsing included, is more than a decision may have to wait for.
"""

import asyncio
import time
from collections.abc import Iterator
from secrets import token_hex
from struct import pack

from msgspec import Struct, msgpack
from redis import Redis

from bench.processes import HOST
from router.domain.audit.records import AuditQuery, DecisionFeatures, PolicyFrame
from router.domain.decide.decision import Reason
from router.domain.tasks.task import Action
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.usecases.audit.query import QueryAudit

TENANT = "bench-audit"
FIRST_MS = 1_700_000_000_000
_CHUNK = 5_000
_USERS, _RARE = 100, 10_000
_FRAME = PolicyFrame("default", 3, "0123456789abcdef", ("openai:gpt-4o", "anthropic:claude", "local:llama"), ("t", "u"))


class QueryCost(Struct, frozen=True):
    """Milliseconds of a page, what it read, and the longest round trip of a read within it."""

    query: str
    entries: int
    pages: int
    read: int
    p50_ms: float
    p99_ms: float
    longest_read_ms: float


def _records(count: int) -> Iterator[tuple[str, bytes]]:
    """Places and records: an entry a millisecond, 100 users, one rare user."""
    for n in range(count):
        user = "rare" if n % _RARE == 0 else f"user-{n % _USERS}"
        features = DecisionFeatures(f"request-{n:08}", "chat", user, None, f"trace-{n:08}", 0, _FRAME)
        at = FIRST_MS + n
        head = pack(">BBdd16sBBdB", 1, Action.DECISION_MADE, float(at), 0.0, n.to_bytes(16), Reason.WEIGHTED, 0, 0.0, 3)
        yield f"{at}-0", head + b"\x01\x00\x00" + msgpack.encode(features)


def fill(redis: Redis, count: int) -> None:
    """One log of so many entries."""
    key = Keys().tenant(TENANT).audit
    pipeline = redis.pipeline(transaction=False)
    for n, (place, record) in enumerate(_records(count), 1):
        pipeline.xadd(key, {"r": record}, id=place)
        if n % _CHUNK == 0:
            pipeline.execute()
    pipeline.execute()


def _queries(count: int) -> dict[str, AuditQuery]:
    middle = FIRST_MS + count // 2
    return {
        "the newest": AuditQuery(TENANT),
        "one user of 100": AuditQuery(TENANT, user_id="user-7"),
        "a time range in the middle": AuditQuery(TENANT, since_ms=middle, until_ms=middle + 1_000),
        "by action": AuditQuery(TENANT, action="decision"),
        "a rare user: reads to the bound": AuditQuery(TENANT, user_id="rare"),
        "a trace that is not there: reads to the bound": AuditQuery(TENANT, trace_id=token_hex(8)),
    }


async def _measure(port: int, count: int, pages: int) -> list[QueryCost]:
    nodes = SingleNode(f"redis://{HOST}:{port}/0")
    reads: list[float] = []
    query = QueryAudit(RedisAudit(Keys(), nodes, on_read=reads.append))
    found: list[QueryCost] = []
    try:
        for name, wanted in _queries(count).items():
            reads.clear()
            times: list[float] = []
            read = 0
            for _ in range(pages):
                started = time.perf_counter()
                read = (await query.page(wanted, limit=100)).read
                times.append((time.perf_counter() - started) * 1000)
            times.sort()
            at = [times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]]
            found.append(QueryCost(name, count, pages, read, at[0], at[1], max(reads) * 1000))
    finally:
        await nodes.close()
    return found


def measure(port: int, count: int, pages: int = 100) -> list[QueryCost]:
    """Fill the server at this port and ask; what was filled is removed again."""
    with Redis(HOST, port) as redis:
        fill(redis, count)
        try:
            return asyncio.run(_measure(port, count, pages))
        finally:
            redis.unlink(Keys().tenant(TENANT).audit)
