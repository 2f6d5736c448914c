"""Operators' levers on two pods: what one act does is in force on both with their next decision."""

import orjson

from router.store.keys import NO_TENANT
from tests.fleet.conftest import Own
from tests.fleet.foreign import Foreign, Reply, task
from tests.fleet.harness import PLAIN, Fleet
from tests.fleet.queries import act

EVENTS = ("admin.act", "admin.refused", "admin.wrong_token")
TOKENS = {
    "alice": "operator:0123456789-token-of-alice",
    "bob": "viewer:0123456789-token-of-bob",
    "carol": "admin:0123456789-token-of-carol",
}


async def asked_of_both(fleet: Fleet, caller: Foreign, tenant: str) -> list[Reply]:
    """Fresh requests until each pod has answered some, all of their replies."""
    replies: list[Reply] = []
    while {r.pod for r in replies} != {p.name for p in fleet.pods} or len(replies) < 40:
        replies += await caller.all([task(tenant) for _ in range(20)])
        assert len(replies) < 2_000, "one of the pods answers nothing"
    return replies


def providers(replies: list[Reply]) -> set[str]:
    """Who was chosen."""
    return {r.decision["provider_id"] for r in replies}


async def test_a_drain_holds_on_every_pod_and_over_a_policy(fleet: Fleet, caller: Foreign) -> None:
    """Once it is drained no pod chooses it, also after a policy was written; enabled, it serves again."""
    tenant = await fleet.tenant()
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"alpha", "beta"}
    await fleet.operator().drain(tenant, provider="alpha", on=True)
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"beta"}
    await fleet.publisher.apply(
        tenant, policy_id="default", document=orjson.dumps(PLAIN | {"metadata": {"written": "again"}})
    )
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"beta"}
    await fleet.operator().drain(tenant, provider="alpha", on=False)
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"alpha", "beta"}


async def test_a_disabled_tenant_is_refused_by_every_pod(fleet: Fleet, caller: Foreign) -> None:
    """Every fresh request gets `unauthorized`; what was answered before is answered still; `enable` ends it."""
    tenant = await fleet.tenant()
    first = await caller.ask(task(tenant, "before"))
    await fleet.operator().switch(tenant, on=False)
    refused = await asked_of_both(fleet, caller, tenant)
    assert {r.error["code"] for r in refused} == {"unauthorized"}
    assert (await caller.ask(task(tenant, "before"))).decision == first.decision
    await fleet.operator().switch(tenant, on=True)
    assert all(r.ok for r in await asked_of_both(fleet, caller, tenant))


async def test_a_forced_breaker_is_shown_as_open(fleet: Fleet, caller: Foreign) -> None:
    """No pod chooses the provider; the admin act tells it by name, with the reason; a reset ends both."""
    tenant = await fleet.tenant()
    await fleet.operator().force_open(tenant, provider="alpha")
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"beta"}
    for body in ({"tenant_id": tenant}, {}):
        states = (await act(caller, "get_circuit_breaker_states", body))["states"]
        (state,) = [s for s in states if s["tenant_id"] == tenant]
        assert (state["provider_id"], state["state"]) == ("alpha", "open")
        assert state["reason"] == "forced open by an operator"
    await fleet.operator().reset(tenant, provider="alpha")
    assert (await act(caller, "get_circuit_breaker_states", {"tenant_id": tenant}))["states"] == []
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"alpha", "beta"}


async def test_a_forgotten_request_is_decided_anew(fleet: Fleet, caller: Foreign) -> None:
    """The same request gets a new decision; other requests get the old one."""
    tenant = await fleet.tenant()
    before = [await caller.ask(task(tenant, name)) for name in ("one", "two")]
    assert await fleet.operator().forget(tenant, request_id="one") is True
    after = [await caller.ask(task(tenant, name)) for name in ("one", "two")]
    same = [a.decision["decision_id"] == b.decision["decision_id"] for a, b in zip(before, after, strict=True)]
    assert same == [False, True]


def bearer(name: str) -> dict[str, str]:
    """The header of one of them."""
    return {"authorization": f"Bearer {TOKENS[name].partition(':')[2]}", "trace_id": f"trace-of-{name}"}


async def test_named_people_act_over_nats(own: Own) -> None:
    """An operator drains on one pod and both obey; an admin writes a policy; each act is in the tenant's log under its
    principal, each use of a role in the log of no tenant, and no token is anywhere: not in logs, audit or replies."""
    env = {"ROUTER_ADMIN_TOKENS": ",".join(f"{name}:{entry}" for name, entry in TOKENS.items())}
    fleet, caller = await own(pods=2, env=env)
    tenant = await fleet.tenant()
    drain = {"tenant_id": tenant, "provider_id": "alpha", "why": "maintenance"}
    replies = [
        await act(caller, "drain_provider", drain),
        await act(caller, "drain_provider", drain, bearer("bob")),
        await act(caller, "drain_provider", drain, {"authorization": "Bearer 0123456789-token-of-nobody"}),
    ]
    assert [r["error"]["code"] for r in replies] == ["unauthorized"] * 3
    done = await act(caller, "drain_provider", drain, bearer("alice"))
    assert done == {"ok": True, "changed": True}
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"beta"}
    policy = PLAIN | {"metadata": {"written": "again"}}
    written = await act(caller, "upsert_policy", {"tenant_id": tenant, "policy": policy}, bearer("carol"))
    assert (written["ok"], written["revision"]) == (True, 2)
    assert providers(await asked_of_both(fleet, caller, tenant)) == {"beta"}
    shown = await act(caller, "list_providers", {"tenant_id": tenant, "api_key": TOKENS["bob"].partition(":")[2]})
    assert {(p["provider_id"], p["drained"]) for p in shown["providers"]} == {("alpha", True), ("beta", False)}

    log = await fleet.audit(tenant, writes=True)
    acts = [e for e in log if e.resource_type in ("provider", "policy")]
    assert [(e.action, e.user_id, e.details.get("role"), e.trace_id) for e in acts] == [
        ("policy.applied", "router", None, None),
        ("provider.drained", "alice", "operator", "trace-of-alice"),
        ("policy.applied", "carol", "admin", "trace-of-carol"),
    ]
    roles = await fleet.audit(NO_TENANT)
    assert [(e.user_id, e.resource_id, e.details["act"], e.details["outcome"]) for e in roles] == [
        ("bob", tenant, "drain_provider", "forbidden"),
        ("alice", tenant, "drain_provider", "done"),
        ("carol", tenant, "upsert_policy", "done"),
        ("bob", tenant, "list_providers", "done"),
    ]
    written_down = [p.log.read_bytes() for p in fleet.pods] + [repr(e).encode() for e in (*log, *roles)]
    written_down += [orjson.dumps(r) for r in (*replies, done, written, shown)]
    assert not [text for text in written_down if b"0123456789-token" in text]
    lines = {event: sum(len(p.logged(event)) for p in fleet.pods) for event in EVENTS}
    assert lines == {"admin.act": 3, "admin.refused": 2, "admin.wrong_token": 1}


async def test_a_dry_run_sees_the_levers(fleet: Fleet, caller: Foreign) -> None:
    """It tells what a request would get: never a drained provider, and no decision for a disabled tenant."""
    tenant = await fleet.tenant()
    ask = {"tenant_id": tenant, "policy_id": "default", "payload": {}}
    await fleet.operator().drain(tenant, provider="alpha", on=True)
    for _ in range(5):
        assert (await act(caller, "dry_run_pipeline", ask))["result"]["decision"]["provider_id"] == "beta"
    await fleet.operator().switch(tenant, on=False)
    assert (await act(caller, "dry_run_pipeline", ask))["error"]["code"] == "unauthorized"
