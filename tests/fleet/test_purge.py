"""A tenant is purged over NATS while it is asked for: no pod decides for it any more, and nothing of it comes back."""

import asyncio

from tests.fleet.conftest import Own
from tests.fleet.foreign import ASSIGN, RESULT, Foreign, Reply, success, task
from tests.fleet.harness import PLAIN, Fleet, until
from tests.fleet.queries import act

ADMIN = "admin:0123456789-token-of-carol"
BEARER = {"authorization": "Bearer 0123456789-token-of-carol"}
POLICIES = {"acme": {"default": PLAIN | {"sticky": {"session_key": "session_id", "ttl": "10m"}}}}


async def load(caller: Foreign, gone: asyncio.Event) -> list[Reply]:
    """Requests, pushed ones among them, until some time after it is gone."""
    replies: list[Reply] = []
    rounds = 0
    while rounds < 5:
        bodies = [
            task("acme", push_assignment=n % 2 == 0, context={"session_id": f"s{len(replies) + n}"}) for n in range(20)
        ]
        replies += await caller.all(bodies)
        rounds += gone.is_set()
    return replies


async def left(fleet: Fleet) -> list[bytes]:
    """Keys of the tenant."""
    return [k for k in await fleet.redis("KEYS", "*") if b":acme:" in k]


async def test_a_tenant_is_purged_under_load(own: Own) -> None:
    """An admin may, a viewer may not; a result for a task that went with it settles nothing and hurts nobody."""
    tokens = {"ROUTER_ADMIN_TOKENS": f"carol:{ADMIN},bob:viewer:0123456789-token-of-bob"}
    fleet, caller = await own(pods=2, policies=POLICIES, env=tokens)
    work = await caller.watch(ASSIGN)
    gone = asyncio.Event()
    loading = asyncio.create_task(load(caller, gone))
    await work.many(20, tenant_id="acme")
    viewer = {"authorization": "Bearer 0123456789-token-of-bob"}
    shown = await act(caller, "show_tenant", {"tenant_id": "acme"}, viewer)
    assert {k["kind"] for k in shown["keys"]} >= {"head", "policies", "pin", "audit"}
    request = {"tenant_id": "acme", "confirm": "acme"}
    assert (await act(caller, "purge_tenant", request, viewer))["error"]["code"] == "unauthorized"
    assert (await act(caller, "purge_tenant", {"tenant_id": "acme"}, BEARER))["error"]["code"] == "invalid_request"
    purged = await act(caller, "purge_tenant", request, BEARER)
    gone.set()
    replies = await asyncio.wait_for(loading, 20)
    assert purged["ok"] is True
    assert purged["kinds"]["pin"] > 20
    refused = [r for r in replies if not r.ok]
    assert {r.error["code"] for r in replies[-60:]} == {"policy_not_found"}
    assert {r.error["code"] for r in refused} <= {"policy_not_found", "unauthorized"}
    await caller.tell(RESULT, success(work.where(tenant_id="acme")[0]))

    async def unknown() -> bool:
        return bool(await fleet.total("router_results_refused_total") > 0)

    await until(unknown, 10, "the late result is refused")
    again = await act(caller, "purge_tenant", request, BEARER)
    assert set(again["kinds"]) <= {"audit", "audit_marks", "retain"}
    assert await left(fleet) == [fleet.keys.tenant("acme").head]
    assert 0 < await fleet.redis("PTTL", fleet.keys.tenant("acme").head) <= 360_000
