"""Read-only admin acts, asked by a client that sends no headers."""

import asyncio

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, ASSIGN, RESULT, Body, Foreign, success, task
from tests.fleet.harness import Document, Fleet, until
from tests.fleet.queries import act

FRAGILE: Document = {
    "version": "1.0",
    "providers": [{"name": "frail", "weight": 100, "priority": 1}, {"name": "sound", "weight": 100}],
    "circuit_breaker": {"enabled": True, "failure_threshold": 1, "timeout_ms": 60_000},
}
PIPELINE: Document = {
    "version": "1.0",
    "providers": [{"name": "only", "weight": 100}],
    "pre": [{"id": "mask", "mode": "required", "timeout_ms": 500}],
    "validators": [{"id": "pii", "on_fail": "block", "timeout_ms": 300}],
    "post": [{"id": "tag", "mode": "optional", "timeout_ms": 200}],
}
TOKEN = "0123456789abcdef-viewer"  # noqa: S105 - of a fleet that lives for one test


async def opened(fleet: Fleet, caller: Foreign) -> str:
    """A tenant whose provider `frail` has an open breaker."""
    tenant = await fleet.tenant(FRAGILE)
    assigned = await caller.watch(ASSIGN)
    await caller.ask(task(tenant, push_assignment=True, options={"retry": {"max_attempts": 1}}))
    work = await assigned.one(tenant_id=tenant)
    await caller.tell(RESULT, success(work, status="error", error_code="HTTP_503"))

    async def is_open() -> bool:
        return bool((await act(caller, "get_circuit_breaker_states", {"tenant_id": tenant}))["states"])

    await until(is_open, 30, "the breaker is there")
    return tenant


async def test_an_open_breaker_is_shown(fleet: Fleet, caller: Foreign) -> None:
    """State, provider by name, since when, why, and when it is tried again."""
    tenant = await opened(fleet, caller)
    reply = await act(caller, "get_circuit_breaker_states", {"tenant_id": tenant})
    assert reply["ok"] is True
    (state,) = reply["states"]
    assert (state["tenant_id"], state["provider_id"], state["state"]) == (tenant, "frail", "open")
    assert state["next_probe_at_ms"] - state["opened_at_ms"] == 60_000
    assert state["reason"] == "1 failures in a row"


async def test_breakers_of_all_tenants(fleet: Fleet, caller: Foreign) -> None:
    """An empty body asks for every tenant."""
    tenant = await opened(fleet, caller)
    reply = await act(caller, "get_circuit_breaker_states", {})
    assert tenant in {s["tenant_id"] for s in reply["states"]}


async def test_pages_of_breakers(fleet: Fleet, caller: Foreign) -> None:
    """One at a time, by the cursor, over both pods: every breaker comes once, and the last page has no cursor."""
    tenants = {await opened(fleet, caller) for _ in range(3)}
    places: list[tuple[str, str]] = []
    body: Body = {"limit": 1}
    while True:
        reply = await act(caller, "get_circuit_breaker_states", body)
        places += [(s["tenant_id"], s.get("provider_id", s.get("extension_id"))) for s in reply["states"]]
        if "cursor" not in reply:
            break
        body = {"limit": 1, "cursor": reply["cursor"]}
    assert len(set(places)) == len(places)
    assert tenants <= {tenant for tenant, _ in places}


async def test_a_dry_run_looks_past_open_breakers_and_charges_nothing(fleet: Fleet, caller: Foreign) -> None:
    """The decision that a request would get; the payload comes back; the audit log stays as it was."""
    tenant = await opened(fleet, caller)
    before = await fleet.actions(tenant)
    body = {"tenant_id": tenant, "policy_id": "default", "payload": {"text": "hello"}}
    reply = await act(caller, "dry_run_pipeline", body)
    result = reply["result"]
    assert result["decision"] == {"provider_id": "sound", "reason": "circuit_breaker_fallback", "priority": 20}
    assert (result["executed_extensions"], result["final_payload"]) == ([], {"text": "hello"})
    assert await fleet.actions(tenant) == before


async def test_the_complexity_of_a_pipeline(fleet: Fleet, caller: Foreign) -> None:
    """Counts, score, level, the worst latency, and what the limits are."""
    tenant = await fleet.tenant(PIPELINE)
    reply = await act(caller, "get_pipeline_complexity", {"tenant_id": tenant, "policy_id": "default"})
    assert reply["ok"] is True
    assert [reply[k] for k in ("total_extensions", "pre_count", "validators_count", "post_count")] == [3, 1, 1, 1]
    assert (reply["complexity_score"], reply["complexity_level"], reply["estimated_latency_ms"]) == (5, "medium", 1000)
    assert reply["recommended_limits"] == {"max_total": 10, "max_pre": 5, "max_validators": 5, "max_post": 5}


async def test_no_extension_was_called(own: Own) -> None:
    """Health of extensions: none, as an object."""
    _, caller = await own(pods=1)
    assert await act(caller, "get_extension_health", {}) == {"ok": True, "health": {}}


async def test_an_unknown_policy(fleet: Fleet, caller: Foreign) -> None:
    """Errors have the form of a decide reply."""
    reply = await act(caller, "dry_run_pipeline", {"tenant_id": "nobody-here", "policy_id": "default", "payload": {}})
    assert reply["ok"] is False
    assert reply["error"]["code"] == "policy_not_found"
    assert reply["error"]["intake_error_code"] is None


async def test_an_unknown_act(caller: Foreign) -> None:
    """The refusal names the acts there are."""
    reply = await act(caller, "reboot", {})
    assert reply["error"]["code"] == "invalid_request"
    assert "get_circuit_breaker_states" in reply["error"]["message"]


async def test_a_token_is_asked_for_by_default(own: Own) -> None:
    """Without ROUTER_ADMIN_NATS_READ=open: no token, a wrong one, then the right one, in header or body."""
    _, caller = await own(pods=1, env={"ROUTER_ADMIN_NATS_READ": "token", "ROUTER_VIEWER_TOKEN": TOKEN})
    assert (await act(caller, "get_extension_health", {}))["error"]["code"] == "unauthorized"
    assert (await act(caller, "get_extension_health", {"api_key": "wrong"}))["error"]["code"] == "unauthorized"
    assert (await act(caller, "get_extension_health", {"api_key": TOKEN}))["ok"] is True
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await act(caller, "get_extension_health", {}, bearer))["ok"] is True


async def test_guessed_tokens_are_two_lines_and_an_alert(own: Own) -> None:
    """3,000 wrong tokens: all refused, counted, alerted once; the log has their number and none of them."""
    env = {"ROUTER_ADMIN_NATS_READ": "token", "ROUTER_ADMIN_TOKEN": TOKEN + "-long-enough-for-a-token"}
    fleet, caller = await own(pods=1, env=env)
    pod = fleet.pods[0]
    for first in range(0, 3000, 50):  # as many at once as a pod serves
        asked = [
            await caller.send(b'{"api_key":"guess-%d"}' % n, subject="beamline.router.v1.admin.purge_tenant")
            for n in range(first, first + 50)
        ]
        replies = await asyncio.wait_for(asyncio.gather(*asked), 20)
        assert {r.error["code"] for r in replies} == {"unauthorized"}
    assert await fleet.total("router_admin_wrong_tokens_total") == 3000
    assert len(pod.logged("admin.wrong_token")) == 1
    assert pod.logged("admin.refused") == []
    assert "guess-" not in pod.log.read_text()
    assert pod.logged("admin.token_short") == []
    alerts = await caller.watch(ALERTS)
    (alert,) = await alerts.until(lambda a: a["alert_id"].startswith("admin_tokens_guessed:"))
    assert alert["severity"] == "critical"


async def test_requests_without_a_token_are_one_line(own: Own) -> None:
    """A gateway that polls without one does not fill the log; it is no guess either."""
    fleet, caller = await own(pods=1, env={"ROUTER_ADMIN_NATS_READ": "token"})
    for _ in range(50):
        assert (await act(caller, "get_extension_health", {}))["error"]["code"] == "unauthorized"
    assert len(fleet.pods[0].logged("admin.refused")) == 1
    assert await fleet.total("router_admin_wrong_tokens_total") == 0


async def test_short_tokens_are_warned_of_at_start(own: Own) -> None:
    """By role or principal, never by the token itself; those of 32 characters are not."""
    long, short = "0123456789abcdef" * 2, "0123456789-fedcba"
    env = {
        "ROUTER_ADMIN_TOKEN": long,
        "ROUTER_VIEWER_TOKEN": TOKEN,
        "ROUTER_ADMIN_TOKENS": f"dora:operator:{short},ed:viewer:{long}x",
    }
    fleet, _ = await own(pods=1, env=env)
    lines = fleet.pods[0].logged("admin.token_short")
    assert [line["message"].split()[4] for line in lines] == ["viewer", "dora"]
    assert {line["level"] for line in lines} == {"warning"}
    assert not any(secret in fleet.pods[0].log.read_text() for secret in (long, short, TOKEN))
