"""The memory of the policy cache, really measured (tracemalloc), against the bound that it is given."""

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator

import orjson
import psutil
import pytest
from msgspec.structs import replace

from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest
from router.domain.policy.model import Policy, StoredPolicy, TenantPolicies
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.cache_settings import CacheSettings
from router.usecases.policies.size import size_of
from router.wire.policies import decode
from tests.usecases.fakes.policies import HeardCache

pytestmark = pytest.mark.heavy

KB = 1000


def full_policy() -> Policy:
    """A policy with something in every section, decoded anew: nothing is shared with another one."""
    return decode(
        orjson.dumps(
            {
                "providers": [
                    {"name": f"provider-{i}", "weight": 10, "expected_latency_ms": 1000 + i, "expected_cost": 0.01}
                    for i in range(10)
                ],
                "sticky": {"ttl": "30m"},
                "fallbacks": [{"to": f"provider-{i}", "when": {"status": [f"50{i}"]}, "retry": 2} for i in range(5)],
                "circuit_breaker": {},
                "limits": [
                    {"id": f"limit-{i}", "scope": "tenant", "resource": "tokens", "limit": 10_000 + i, "window": "60s"}
                    for i in range(3)
                ],
                "pre": [{"id": "clean", "mode": "optional", "config": {"words": ["a", "b"], "depth": 3}}],
                "metadata": {"owner": "somebody", "notes": "x" * 100},
            }
        )
    ).policy


class Loader:
    """A store that makes up policies: `each` a tenant, compiled at every load."""

    def __init__(self, each: int) -> None:
        self._each = each

    async def load(self, tenant_id: str) -> TenantPolicies:
        """As `ports.policies.PolicyStore.load`."""
        names = [f"{tenant_id}-policy-{n}" for n in range(self._each)]
        policies = {name: StoredPolicy(name, 1, f"{n:016x}", full_policy()) for n, name in enumerate(names)}
        return TenantPolicies(tenant_id, 1, b"\0\0\0\1" + tenant_id.encode()[:4], policies)


@pytest.fixture
def measured() -> Iterator[None]:
    """tracemalloc on; what parsing makes once (patterns, words) is there already."""
    full_policy()
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def held() -> int:
    """Bytes that Python holds now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def a_cache(max_bytes: int, each: int) -> PolicyCache:
    """A cache in front of made-up tenants."""
    return PolicyCache(Loader(each), HeardCache(), CacheSettings(max_bytes=max_bytes), clock=lambda: 0.0)


@pytest.mark.usefixtures("measured")
async def test_the_estimate_is_what_is_held() -> None:
    """The size that the bound counts is within a tenth of the memory that a tenant's policies really take."""
    loader = Loader(10)
    before = held()
    tenants = [await loader.load(f"t{n}") for n in range(3)]
    taken = held() - before
    assert sum(map(size_of, tenants)) == pytest.approx(taken, rel=0.1)


@pytest.mark.usefixtures("measured")
async def test_the_cache_stays_within_its_bound() -> None:
    """Twice as many tenants of 50 KB as fit: the memory is within a tenth of the bound, and well used."""
    bound = 500 * KB
    cache = a_cache(bound, each=7)
    before = held()
    sizes = []
    for n in range(20):
        sizes.append(size_of(await cache.load(f"t{n}") or pytest.fail("no policies")))
        await asyncio.sleep(0)
    taken = held() - before
    assert min(sizes) > 50 * KB
    assert bound * 0.8 < taken < bound * 1.1
    assert cache.size_bytes <= bound


@pytest.mark.usefixtures("measured")
async def test_what_planning_remembers_is_within_the_bound() -> None:
    """Orders that planning remembers count, and are forgotten before any tenant is."""
    one = size_of(await Loader(1).load("t"))
    cache = a_cache(6 * one, each=1)
    tenants = [await cache.load(f"t{n}") for n in range(5)]
    before, counted = held(), cache.size_bytes
    request = DecideRequest("t0", "r", "p", "chat", bytes(8))
    for found in tenants:
        assert found is not None
        for stored in found.policies.values():
            for n in range(100):
                plan(replace(request, request_id=f"{n}"), stored)
    remembered, remembered_size = held() - before, cache.size_bytes
    cache.enforce_bound()
    left = held() - before
    # Only now, because a first assertion makes pytest keep memory of its own.
    assert remembered_size - counted == pytest.approx(remembered, rel=0.15)
    assert remembered_size > 6 * one
    assert cache.tenants == 5
    assert left < one


@pytest.mark.long
async def test_a_thousand_tenants_of_100_kb() -> None:
    """At the default bound, with more tenants than fit: the process grows by the bound, a quarter of slack included."""
    process = psutil.Process()
    cache = PolicyCache(Loader(14), HeardCache(), clock=lambda: 0.0)
    gc.collect()
    before = process.memory_info().rss
    for n in range(1_200):
        await cache.load(f"t{n}")
    gc.collect()
    grown = process.memory_info().rss - before
    bound = CacheSettings().max_bytes
    assert 0.9 * bound < cache.size_bytes <= bound
    assert grown < 1.25 * bound
