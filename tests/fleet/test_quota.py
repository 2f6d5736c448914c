"""ROUTER_QUOTA_REQUESTS: what a tenant may be decided in a day, over all pods and policies of it."""

from tests.fleet.conftest import Own
from tests.fleet.foreign import task
from tests.fleet.harness import PLAIN


async def test_a_tenant_has_a_quota_of_decisions(own: Own) -> None:
    """Exactly so many on two pods under two policies, and so many remembered answers; repeats are free; the refusal
    says when there is more; another tenant has its own."""
    policies = {"acme": {"default": PLAIN, "other": PLAIN}, "globex": {"default": PLAIN}}
    fleet, caller = await own(pods=2, policies=policies, env={"ROUTER_QUOTA_REQUESTS": "30"})
    bodies = [task("acme", f"r{n}", policy_id=("default", "other")[n % 2]) for n in range(60)]
    replies = await caller.all(bodies)
    admitted = [n for n, r in enumerate(replies) if r.ok]
    assert len(admitted) == 30
    refused = {r.error["code"] for r in replies if not r.ok}
    assert refused == {"quota_exceeded"}
    details = next(r for r in replies if not r.ok).error["details"]
    assert details["scope"] == "tenant"
    assert details["retry_after_ms"] > 60_000
    again = await caller.all([bodies[n] for n in admitted])
    assert all(r.context["replayed"] for r in again)
    tenant = fleet.keys.tenant("acme")
    assert len(await fleet.redis("KEYS", tenant.idem_prefix + b"*")) == 30
    assert (await caller.ask(task("globex"))).ok
