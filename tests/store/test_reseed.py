"""FLUSHALL under a running pod, on a server of its own: the policies come back by themselves."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from router.installed_files import examples_dir
from router.store.keys import Keys
from router.store.policies import RedisPolicies
from router.store.servers.meta import RedisMeta
from router.store.servers.nodes import SingleNode
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.folder import read_folder
from router.usecases.policies.seed import Seeder, SeedKeeper, Source
from tests.servers import ValkeyProcess
from tests.usecases.fakes.policies import HeardCache, HeardSeed

TENANTS = ("acme", "globex", "initech")


class Pod:
    """Cache and guard of one pod, on one store."""

    def __init__(self, nodes: SingleNode) -> None:
        keys = Keys()
        self.store = RedisPolicies(nodes, keys)
        self.heard = HeardSeed()
        self.cache = PolicyCache(self.store, HeardCache(), clock=time.monotonic)
        self.guard = SeedKeeper(
            self.store,
            RedisMeta(keys, nodes),
            Seeder(self.store, partial(read_folder, examples_dir() / "policies"), self.heard),
            self.heard,
            source=Source.REDIS,
            reload=self.cache.announced,
            reload_all=self.cache.announced_all,
            interval_s=0.05,
        )

    async def stamp(self, tenant: str) -> bytes:
        """What a decide row would answer."""
        return (await self.store.records(tenant)).stamp


@pytest.fixture
async def nodes(servers: None, tmp_path: Path) -> AsyncIterator[SingleNode]:
    """A client of a server that nobody else uses."""
    server = ValkeyProcess(tmp_path)
    await asyncio.to_thread(server.start)
    client = SingleNode(server.url)
    await client.open()
    yield client
    await client.close()
    await asyncio.to_thread(server.stop)


async def test_flushall_under_running_pods(nodes: SingleNode) -> None:
    """Within five seconds all tenants have their policies again, in the store and in both pods, which never stop."""
    pods = [Pod(nodes), Pod(nodes)]
    for pod in pods:
        await pod.guard.check()
        for tenant in TENANTS:
            await pod.cache.load(tenant)
    runs = [asyncio.ensure_future(p.guard.run()) for p in pods]
    before = {t: await pods[0].stamp(t) for t in TENANTS}

    await nodes.call("FLUSHALL")
    async with asyncio.timeout(5):
        for pod in pods:
            for tenant in TENANTS:
                # As rows do: answer the stamp, ask the cache, until the two agree again.
                while True:
                    stamp = await pod.stamp(tenant)
                    pod.cache.observe(tenant, stamp)
                    known = pod.cache.get(tenant)
                    assert getattr(known, "policies", None), "the last good policies must serve"
                    if any(stamp) and getattr(known, "stamp", None) == stamp:
                        break
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)
    assert sum(len(p.heard.reseeds) for p in pods) >= 1
    after = {t: await pods[0].stamp(t) for t in TENANTS}
    assert all(after[t] != before[t] for t in TENANTS)
    for tenant in TENANTS:
        assert len((await pods[0].store.records(tenant)).records) == 4
