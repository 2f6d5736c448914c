"""How much a tenant's policies may be, all together."""

from typing import Any

import orjson
import pytest

from router.errors import QuotaExceeded
from router.ports.policy_records import Quotas
from router.usecases.policies.publish import PolicyPublisher
from tests.usecases.fakes.policies import HeardSeed, MemoryPolicies


def document(*names: str, fallbacks: int = 0, limits: int = 0) -> bytes:
    """A policy of these providers with so many rules."""
    policy: dict[str, Any] = {"providers": [{"name": n, "weight": 1} for n in names]}
    policy["fallbacks"] = [{"to": names[0], "when": {"status": [f"50{i}"]}} for i in range(fallbacks)]
    policy["limits"] = [
        {"id": f"l{i}", "scope": "tenant", "resource": "requests", "limit": 1, "window": f"{i + 1}s"}
        for i in range(limits)
    ]
    return orjson.dumps(policy)


class World:
    """Publishers with small quotas on one store."""

    def __init__(self) -> None:
        self.store = MemoryPolicies()

    async def apply(self, policy_id: str, data: bytes, **quotas: int) -> None:
        """Apply under these quotas."""
        publisher = PolicyPublisher(self.store, HeardSeed(), quotas=Quotas(**quotas))
        await publisher.apply("acme", policy_id=policy_id, document=data)


@pytest.fixture
async def world() -> World:
    """A world of its own."""
    return World()


@pytest.mark.parametrize(
    ("quota", "first", "second"),
    [
        ("policies", document("a"), document("a")),
        ("providers", document("a"), document("b")),
        ("providers", document("a"), b'{"weights":{"a":1},"fallback":"b"}'),
        ("rules", document("a", limits=1), document("a", fallbacks=1)),
    ],
)
async def test_all_policies_of_a_tenant_count(world: World, quota: str, first: bytes, second: bytes) -> None:
    """One is within the quota, the two together are not: refused with the numbers and the setting, nothing written."""
    await world.apply("one", first, **{quota: 1})
    with pytest.raises(QuotaExceeded, match=rf"would have 2 {quota}, at most 1 \(ROUTER_QUOTA_{quota.upper()}\)"):
        await world.apply("two", second, **{quota: 1})
    assert world.store.writes == 1
    await world.apply("two", second, **{quota: 2})


async def test_a_provider_counts_once(world: World) -> None:
    """Two policies with the same providers have as many as one."""
    await world.apply("one", document("a", "b"), providers=2)
    await world.apply("two", document("b", "a"), providers=2)
    assert world.store.writes == 2


async def test_a_tenant_above_a_lowered_quota_can_shrink(world: World) -> None:
    """What takes it no further up is written, also when it is still above."""
    await world.apply("one", document("a", "b", "c", limits=3))
    await world.apply("one", document("a", "b", limits=2), providers=1, rules=1)
    with pytest.raises(QuotaExceeded):
        await world.apply("one", document("a", "b", "c", limits=2), providers=1, rules=1)
    assert world.store.writes == 2


async def test_another_tenant_s_policies_do_not_count(world: World) -> None:
    """Quotas are a tenant's own."""
    await PolicyPublisher(world.store, HeardSeed(), quotas=Quotas(policies=1)).apply(
        "globex", policy_id="one", document=document("z")
    )
    await world.apply("one", document("a"), policies=1, providers=1)
    assert world.store.writes == 2
