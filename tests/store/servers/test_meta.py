"""The store's own record, and the readings of episodes."""

import pytest

from router.errors import StartupRefused
from router.store.keys import Keys
from router.store.servers.meta import RedisEpochs, RedisMeta
from router.store.servers.nodes import SingleNode

EPISODES = {"a:t1": "3 1 1000", "a:t2": "4 0 1000", "b:t1": "5 1 9000000000000", "ab:x:y": "6 1 1000"}


async def test_the_first_pod_writes_the_record(plain: SingleNode, keys: Keys) -> None:
    """Only the first one finds the store empty, and its id stays."""
    meta = RedisMeta(keys, plain)
    assert await meta.ensure()
    store_id = await plain.call("HGET", keys.meta, "store_id")
    assert not await meta.ensure()
    assert await plain.call("HGET", keys.meta, "store_id") == store_id
    assert len(store_id) == 16


async def test_another_number_of_partitions_is_refused(plain: SingleNode, keys: Keys) -> None:
    """The message names the setting and its right value."""
    await RedisMeta(keys, plain).ensure()
    with pytest.raises(StartupRefused, match="set it to 64"):
        await RedisMeta(Keys(keys.schema, 32), plain).ensure()


async def test_open_episodes_are_read(plain: SingleNode, keys: Keys) -> None:
    """By condition and scope; what has ended is not open."""
    await plain.call("HSET", keys.epochs, *(word for pair in EPISODES.items() for word in pair))
    epochs = RedisEpochs(keys, plain)
    assert [await epochs.current("a", scope=scope) for scope in ("t1", "t2", "t3")] == [3, None, None]
    assert await epochs.open_scopes("a") == ["t1"]
    assert await epochs.open_scopes("ab") == ["x:y"]


async def test_episodes_that_no_pod_joins_are_left(plain: SingleNode, keys: Keys) -> None:
    """Those that are open and were joined too long ago."""
    await plain.call("HSET", keys.epochs, *(word for pair in EPISODES.items() for word in pair))
    assert await RedisEpochs(keys, plain).stale(60_000) == [("a", "t1"), ("ab", "x:y")]


async def test_a_fleet_without_episodes(plain: SingleNode, keys: Keys) -> None:
    """Nothing is open and nothing is left."""
    epochs = RedisEpochs(keys, plain)
    assert (await epochs.current("a", scope="t"), await epochs.open_scopes("a"), await epochs.stale(0)) == (
        None,
        [],
        [],
    )
