"""Sampling the store: every key is of a kind, one pod leads, and a walk sees all keys."""

from collections import Counter

import pytest

from router.store.key_kinds import KEYS
from router.store.keys import Keys
from router.store.servers.nodes import Nodes, SingleNode
from router.store.tenants.sample import OTHER, RedisSample, kind_of_key
from tests.store.filled import everything, filled
from tests.store.harness import Store


@pytest.mark.parametrize("kind", KEYS)
def test_every_key_is_of_its_kind(kind: str) -> None:
    """As the table has its pattern; with a tenant that is called like a kind."""
    made = KEYS[kind].pattern.replace("<schema>", "r1").replace("{p}", "{aa}").replace("<tenant>", "task")
    for owner in ("policy", "hash", "provider", "owner", "task"):
        made = made.replace(f"<{owner}>", "x" * 10)
    assert kind_of_key(b"r1", made.replace("<name>", "n" * 10).encode()) == kind


@pytest.mark.parametrize("key", [b"x", b"r1", b"r1x", b"r1:new", b"r1{aa}long-name-of-nothing", b"r2:{aa}:t:head"])
def test_what_is_no_key_of_ours(key: bytes) -> None:
    """Counted, as other."""
    assert kind_of_key(b"r1", key) == OTHER


async def test_one_pod_leads_until_it_stops(plain: SingleNode, keys: Keys) -> None:
    """It stays the one as long as it asks; when its lease has gone, another one is."""
    first, second = RedisSample(keys, plain, "pod-1"), RedisSample(keys, plain, "pod-2")
    assert await first.lead(60_000)
    assert not await second.lead(60_000)
    assert await first.lead(60_000)
    await plain.call("DEL", keys.census)
    assert await second.lead(60_000)
    assert not await first.lead(60_000)


async def test_a_walk_sees_every_key(store: Store, store_nodes: Nodes) -> None:
    """On a Cluster, too; each kind has sizes."""
    await filled(store, store_nodes)
    sample = RedisSample(store.keys, store_nodes, "pod-1")
    there = Counter(kind_of_key(store.keys.schema.encode(), k) for k in everything(store))
    seen: Counter[str] = Counter()
    pages = 0
    while True:
        page = await sample.page()
        pages += 1
        seen.update(page.counts)
        assert set(page.sizes) <= set(page.counts)
        if seen.total() >= page.total or pages > 10_000:
            break
    assert not {k: n for k, n in there.items() if k != OTHER and seen[k] < n}
