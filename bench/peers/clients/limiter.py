"""`limits` and `throttled-py` with asynchronous Redis, as their documents show them. Run by the peers' Python:

    python -m bench.peers.clients.limiter load NAME REDIS_PORT OUTSTANDING WARMUP_S MEASURE_S
    python -m bench.peers.clients.limiter serve NAME REDIS_PORT PORT LIMIT BUDGET_CENTS

`load` is a load command: one sliding window a tenant, 100 tenants, nothing is refused. `serve` is an instance that many
callers share: it answers lines `ID BOUND COST` with `ID yes` or `ID no`; a budget is a limit whose requests cost more.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta

from bench.peers.clients import closed_loop

TENANTS, NEVER = 100, 1_000_000_000
MINUTE_S, HOUR_S = 60, 3_600

Hit = Callable[[str, int], Awaitable[bool]]
"""Charges a key with a cost, and says whether the limit admits it."""
Limiter = Callable[[int, int, int], Hit]
"""A limiter of (Redis port, limit, seconds)."""


def limits_hit(port: int, limit: int, seconds: int) -> Hit:
    """`limits` with redis-py: the sliding window counter."""
    from limits import RateLimitItemPerSecond  # noqa: PLC0415 (each peer is imported by its own rows only)
    from limits.aio.storage import RedisStorage  # noqa: PLC0415
    from limits.aio.strategies import SlidingWindowCounterRateLimiter  # noqa: PLC0415

    storage = RedisStorage(f"async+redis://127.0.0.1:{port}", implementation="redispy")
    limiter, item = SlidingWindowCounterRateLimiter(storage), RateLimitItemPerSecond(limit, seconds)

    async def hit(key: str, cost: int) -> bool:
        return bool(await limiter.hit(item, key, cost=cost))

    return hit


def throttled_hit(port: int, limit: int, seconds: int) -> Hit:
    """`throttled-py`: the sliding window."""
    from throttled.asyncio import (  # noqa: PLC0415
        RateLimiterType,
        RedisStore,
        Throttled,
        rate_limiter,
    )

    throttle = Throttled(
        using=RateLimiterType.SLIDING_WINDOW.value,
        quota=rate_limiter.per_duration(timedelta(seconds=seconds), limit),
        store=RedisStore(server=f"redis://127.0.0.1:{port}/0"),
    )

    async def hit(key: str, cost: int) -> bool:
        return not (await throttle.limit(key, cost=cost)).limited

    return hit


LIMITERS: dict[str, Limiter] = {"limits": limits_hit, "throttled-py": throttled_hit}


async def load(name: str, port: int, outstanding: int, warmup_s: float, measure_s: float) -> None:
    """The load command."""
    hit = LIMITERS[name](port, NEVER, MINUTE_S)

    async def operation(number: int) -> str:
        return "ok" if await hit(f"tenant-{number % TENANTS}", 1) else "refused"

    await closed_loop.run(operation, outstanding, warmup_s, measure_s)


async def serve(name: str, redis_port: int, port: int, limit: int, budget_cents: int) -> None:
    """The instance, until it is killed."""
    limiter = LIMITERS[name]
    bounds = {"limited": limiter(redis_port, limit, HOUR_S), "budgeted": limiter(redis_port, budget_cents, HOUR_S)}

    async def answer(line: bytes, writer: asyncio.StreamWriter) -> None:
        request, bound, cost = line.decode().split()
        try:
            said = "yes" if await bounds[bound](bound, int(cost)) else "no"
        except Exception as fault:  # the caller decides what to do about it
            said = type(fault).__name__
        writer.write(f"{request} {said}\n".encode())

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as answers:
            while line := await reader.readline():
                answers.create_task(answer(line, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print("LISTENING", flush=True)
    await server.serve_forever()


def main() -> None:
    """See the module."""
    act, name, redis_port, *more = sys.argv[1:]
    if act == "load":
        asyncio.run(load(name, int(redis_port), int(more[0]), float(more[1]), float(more[2])))
    else:
        asyncio.run(serve(name, int(redis_port), int(more[0]), int(more[1]), int(more[2])))


if __name__ == "__main__":
    main()
