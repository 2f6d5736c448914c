"""What a running fleet tells of its limits and breakers."""

from tests.fleet.foreign import Foreign, task
from tests.fleet.harness import Document, Fleet, until

A_LOOK_S = 15.0
TIGHT: Document = {
    "version": "1.0",
    "providers": [{"name": "alpha", "weight": 60}, {"name": "beta", "weight": 40}],
    "limits": [{"id": "ten", "scope": "tenant", "resource": "requests", "limit": 10, "window": "10m"}],
}


async def test_a_full_limit_and_a_held_breaker_are_told(fleet: Fleet, caller: Foreign) -> None:
    """By one pod, at its next look, whoever was asked; what the limit refuses is counted at once."""
    tenant = await fleet.tenant(TIGHT)
    await fleet.operator().force_open(tenant, provider="alpha", why="a test")
    refused = await fleet.total("router_limit_refusals_total")
    replies = await caller.all([task(tenant) for _ in range(11)])
    assert [r.body["ok"] for r in replies].count(False) == 1
    assert await fleet.total("router_limit_refusals_total") == refused + 1
    # Of both, lest the one that leads was not asked.
    await until(lambda: both_hold(fleet, caller, tenant), 5, "both pods hold the tenant's policies")

    async def told() -> bool:
        rows = [await pod.metrics() for pod in fleet.pods]
        full = 'router_limit_used_ratio{resource="requests",scope="tenant",tenant="other"}'
        held = 'router_breakers{state="forced"}'
        return max(r[full] for r in rows) == 1 and max(r[held] for r in rows) == 1

    await until(told, A_LOOK_S, "a full limit and a forced breaker are told")
    leads = [pod for pod in fleet.pods if (await pod.metrics())["router_measured_tenants"]]
    assert len(leads) == 1


async def both_hold(fleet: Fleet, caller: Foreign, tenant: str) -> bool:
    """Whether this round of requests was answered by both pods."""
    return len({r.pod for r in await caller.all([task(tenant) for _ in range(8)])}) == len(fleet.pods)
