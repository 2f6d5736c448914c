"""lua/count_strike.lua: one count a message and cause, for all pods, forgotten in time."""

from secrets import token_hex

from redis import Redis

from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.tasks.delivery_failures import KEEP_MS, RedisDeliveryFailures


async def test_pods_count_one_message_together(single: Redis, redis_url: str) -> None:
    """By its place, its content and the cause; a stream that was made again begins anew; every count has a TTL."""
    keys = Keys(schema=f"t{token_hex(5)}")
    nodes = [SingleNode(redis_url) for _ in range(2)]
    try:
        one, two = (RedisDeliveryFailures(keys, n) for n in nodes)
        assert [await pod.count("result fault", 7, b"poison") for pod in (one, two, one)] == [1, 2, 3]
        assert await one.count("result bug", 7, b"poison") == 1
        assert await two.count("result fault", 8, b"poison") == 1
        assert await two.count("result fault", 7, b"another stream's") == 1
        kept = list(single.scan_iter(keys.schema.encode() + b":*"))
        assert len(kept) == 4
        assert all(single.pttl(key) in range(KEEP_MS - 20_000, KEEP_MS + 1) for key in kept)
    finally:
        for node in nodes:
            await node.close()
