"""Redis flushed, frozen, killed: what callers are told, and what is right again afterwards."""

import asyncio
import time

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, ASSIGN, Foreign, task
from tests.fleet.frozen import POLICIES, QUICK, frozen, limited
from tests.fleet.harness import Fleet, until


async def test_a_flushed_store_is_right_again_within_five_seconds(own: Own) -> None:
    """FLUSHALL under two running pods: seeded again, counted, alerted, and both pods decide by the seeded policy."""
    fleet, caller = await own(policies=POLICIES)
    alerts = await caller.watch(ALERTS)
    await caller.all([task("plain") for _ in range(20)])
    started = time.monotonic()
    await fleet.redis("FLUSHALL")

    async def right() -> bool:
        replies = await caller.all([task("plain") for _ in range(10)])
        return all(r.ok and r.decision["policy_revision"] == 1 for r in replies) and len({r.pod for r in replies}) == 2

    await until(right, 5, "right answers")
    await until(lambda: _reseeded(fleet), 5 - (time.monotonic() - started), "seeded again")
    raised = await alerts.until(lambda a: a["component"] == "store" and "seeded" in a["message"])
    assert raised[0]["severity"] == "critical"
    assert (await caller.ask(task("lenient"))).ok
    assert "decision.made" in await fleet.actions("plain")


async def test_sessions_stay_where_they_were_without_their_pins(own: Own) -> None:
    """The store is lost, or away: the pins are made again by hash, and a degraded decision follows the same hash."""
    sticky = limited("allow") | {"sticky": {"enabled": True, "session_key": "session_id", "ttl": "10m"}}
    fleet, caller = await own(policies={"sticky": {"default": sticky}}, env=QUICK)

    async def providers(round_: str) -> list[str]:
        asked = [task("sticky", f"{round_}-{n}", context={"session_id": f"s{n}"}) for n in range(30)]
        replies = await caller.all(asked)
        return [r.decision["provider_id"] for r in replies] if all(r.ok for r in replies) else []

    before = await providers("before")
    assert set(before) == {"alpha", "beta"}
    await fleet.redis("FLUSHALL")

    async def again() -> list[str]:
        return await providers(f"flushed-{time.monotonic_ns()}")

    assert await until(again, 5, "decisions again") == before
    async with frozen(fleet):
        await until(lambda: _all_know(fleet), 5, "every pod knows that the store is away")
        assert await providers("away") == before


async def _all_know(fleet: Fleet) -> bool:
    return await fleet.total("router_store_breaker_open") == len(fleet.pods)


async def _reseeded(fleet: Fleet) -> bool:
    return await fleet.total("router_store_reseeded_total") >= 1


async def test_a_frozen_store_is_told_at_once(own: Own) -> None:
    """The first callers hear `unavailable`, outcome unknown, after the deadline; later ones at once; all well after."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    assert (await caller.ask(task("strict"))).ok
    async with frozen(fleet):
        started = time.monotonic()
        first = await caller.ask(task("strict", "r-unknown"))
        assert time.monotonic() - started < 0.3
        assert first.error["code"] == "unavailable"
        assert first.error["details"]["outcome"] == "unknown"
        assert first.error["details"]["request_id"] == "r-unknown"
        await until(lambda: _known_to_be_away(fleet), 1, "three deadlines missed")
        started = time.monotonic()
        later = await caller.ask(task("strict", "r-later"))
        assert time.monotonic() - started < 0.1
        assert later.error["code"] == "unavailable"
        assert "outcome" not in later.error["details"]
        assert later.error["details"]["retry_after_ms"] > 0
        assert (await fleet.pods[0].readyz())[0] == 200
    await until(lambda: _decides(caller, "strict"), 5, "decisions again")
    assert (await caller.ask(task("strict", "r-unknown"))).ok
    made = [a for a in await fleet.actions("strict", "r-unknown") if a == "decision.made"]
    assert made == ["decision.made"]
    assert await fleet.actions("strict", "r-later") == []


async def _known_to_be_away(fleet: Fleet) -> bool:
    return await fleet.total("router_store_breaker_open") == 1


async def _decides(caller: Foreign, tenant: str) -> bool:
    reply = await caller.ask(task(tenant))
    return reply.ok and "degraded" not in reply.decision


async def test_a_policy_that_allows_gets_degraded_decisions(own: Own) -> None:
    """Labelled, never dispatched, audited once the store is back; no limit: ROUTER_ON_STORE_ERROR, which denies."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    assigned = await caller.watch(ASSIGN)
    for tenant in POLICIES:
        assert (await caller.ask(task(tenant))).ok
    async with frozen(fleet):
        assert (await caller.ask(task("strict"))).error["details"]["outcome"] == "unknown"
        replies = await caller.all([task("lenient", f"r-{n}") for n in range(20)])
        assert all(r.decision["degraded"] is True for r in replies)
        assert all(r.decision["provider_id"] in {"alpha", "beta"} for r in replies)
        assert (await caller.ask(task("lenient", "r-push", push_assignment=True))).error["code"] == "unavailable"
        assert (await caller.ask(task("plain"))).error["code"] == "unavailable"
        assert (await fleet.pods[0].metrics())["router_audit_deferred"] == 20
    await until(lambda: _audited(fleet, 20), 5, "the degraded decisions are audited")
    entries = [e for e in await fleet.audit("lenient") if e.action == "decision.degraded"]
    assert {e.details["request_id"] for e in entries} == {f"r-{n}" for n in range(20)}
    told = {r.decision["decision_id"] for r in replies}
    assert {e.details["decision_id"] for e in entries} == told
    await until(lambda: _decides(caller, "lenient"), 5, "decisions again")
    assert assigned.seen == []
    assert (await fleet.pods[0].metrics())["router_audit_deferred"] == 0


async def test_degraded_decisions_while_the_store_is_gone(own: Own) -> None:
    """No server at the address any more: degraded, and who asks why is told what is known without a store."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    assert (await caller.ask(task("lenient"))).ok
    alerts = await caller.watch(ALERTS)
    await asyncio.to_thread(fleet.valkey.kill)
    # Nobody asks for anything meanwhile.
    await until(lambda: _known_to_be_away(fleet), 5, "the store is known to be away")
    await alerts.one(component="store", severity="critical")
    reply = await caller.ask(task("lenient", "r-why", options={"explain": True}))
    assert reply.decision["degraded"] is True
    told = reply.context["explain"]
    assert told["degraded"] is True
    assert told["policy_id"] == "default", told
    assert {c["provider_id"] for c in told["candidates"]} == {"alpha", "beta"}
    assert sum(c["verdict"] == "chosen" for c in told["candidates"]) == 1
    plain = await caller.ask(task("lenient", "r-plain"))
    assert plain.decision["degraded"] is True
    assert "explain" not in plain.context
    refused = await caller.ask(task("strict", "r-no", options={"explain": True}))
    assert refused.error["code"] == "unavailable"
    pushed = await caller.ask(task("lenient", "r-push", push_assignment=True, options={"explain": True}))
    assert pushed.error["code"] == "unavailable"
    await asyncio.to_thread(fleet.valkey.start)
    await until(lambda: _audited(fleet, 2), 10, "the degraded decisions are audited")
    await until(lambda: _decides(caller, "lenient"), 5, "decisions again")


async def _audited(fleet: Fleet, count: int) -> bool:
    return (await fleet.actions("lenient")).count("decision.degraded") == count


async def test_levers_hold_while_the_store_is_away(own: Own) -> None:
    """What operators drained or switched off before the outage stays out of degraded decisions."""
    policies = {"lenient": {"default": limited("allow")}, "closed": {"default": limited("allow")}}
    fleet, caller = await own(pods=1, policies=policies, env=QUICK)
    for tenant in policies:
        assert (await caller.ask(task(tenant))).ok
    await fleet.operator().drain("lenient", provider="alpha", on=True)
    await fleet.operator().switch("closed", on=False)
    await until(lambda: _heads_read_again(fleet, caller), 5, "the next rows tell the pod of the levers")
    async with frozen(fleet):
        await until(lambda: _known_to_be_away(fleet), 5, "the store is known to be away")
        replies = await caller.all([task("lenient") for _ in range(20)])
        assert {(r.decision["provider_id"], r.decision["degraded"]) for r in replies} == {("beta", True)}
        assert (await caller.ask(task("closed"))).error["code"] == "unauthorized"


async def _heads_read_again(fleet: Fleet, caller: Foreign) -> bool:
    for tenant in ("lenient", "closed"):
        await caller.ask(task(tenant))
    return (await fleet.pods[0].metrics()).get('router_policy_reloads_total{cause="stamp"}', 0) == 2


async def test_without_a_limit_the_setting_decides(own: Own) -> None:
    """ROUTER_ON_STORE_ERROR=allow: a request without limits gets a degraded decision."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK | {"ROUTER_ON_STORE_ERROR": "allow"})
    for tenant in POLICIES:
        assert (await caller.ask(task(tenant))).ok
    async with frozen(fleet):
        await caller.ask(task("plain"))
        assert (await caller.ask(task("plain"))).decision["degraded"] is True
        assert (await caller.ask(task("strict"))).error["code"] == "unavailable"


async def test_an_outage_is_alerted_and_resolved(own: Own) -> None:
    """Redis away is a critical alert, and its end an `info` with the same id."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    alerts = await caller.watch(ALERTS)
    assert (await caller.ask(task("strict"))).ok
    async with frozen(fleet):
        await caller.ask(task("strict"))
        (away,) = await alerts.until(lambda a: a["component"] == "store")
        assert away["severity"] == "critical"
    await until(lambda: _decides(caller, "strict"), 5, "decisions again")
    resolved = await alerts.until(lambda a: a["metadata"].get("resolved") is True)
    assert [a["alert_id"] for a in resolved] == [away["alert_id"]]
    assert resolved[0]["severity"] == "info"


async def test_a_killed_and_restarted_store_is_found_again(own: Own) -> None:
    """kill -9 of Redis, without persistence: `unavailable` meanwhile, and right answers once it is back."""
    fleet, caller = await own(policies=POLICIES)
    assert (await caller.ask(task("strict"))).ok
    await asyncio.to_thread(fleet.valkey.kill)
    replies = await caller.all([task("strict") for _ in range(30)])
    assert {r.error["code"] for r in replies} == {"unavailable"}
    await asyncio.to_thread(fleet.valkey.start)
    await until(lambda: _decides(caller, "strict"), 5, "decisions again")
    assert [(await pod.readyz())[0] for pod in fleet.pods] == [200, 200]
    assert caller.doubles() == 0
