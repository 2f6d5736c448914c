"""Redis that forgets its scripts, drops connections, is full, or is away while something else is asked of it."""

import asyncio
import time
from uuid import UUID

import pytest

from router.domain.policy.model import provider_entry
from tests.fleet.conftest import Own
from tests.fleet.foreign import ACK, ALERTS, BACKPRESSURE, GET_DECISION, RESULT, USAGE, Foreign, success, task
from tests.fleet.frozen import POLICIES, QUICK, frozen
from tests.fleet.harness import PLAIN, Fleet, until

ACME = {"acme": {"default": PLAIN}, "other": {"default": PLAIN}}


async def test_forgotten_scripts_are_loaded_again(own: Own) -> None:
    """SCRIPT FLUSH and FUNCTION FLUSH, as after a failover: nobody gets an error."""
    fleet, caller = await own(pods=1, policies=ACME)
    assert (await caller.ask(task("acme"))).ok
    await fleet.redis("SCRIPT", "FLUSH")
    await fleet.redis("FUNCTION", "FLUSH")
    assert all(r.ok for r in await caller.all([task("acme", push_assignment=True) for _ in range(50)]))
    usage = await caller.watch(USAGE)
    await fleet.redis("SCRIPT", "FLUSH")
    await fleet.redis("FUNCTION", "FLUSH")
    work = await (await caller.watch("caf.exec.assign.v1")).one()
    await caller.tell(RESULT, success(work))
    await usage.one(usage_id=work["task_id"])


async def test_dropped_connections_are_made_again(own: Own) -> None:
    """CLIENT KILL of everybody: decisions again at once, no request without an answer."""
    fleet, caller = await own(pods=1, policies=ACME)
    assert (await caller.ask(task("acme"))).ok
    for _ in range(5):
        await fleet.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        replies = await caller.all([task("acme") for _ in range(20)])
        assert {r.error["code"] for r in replies if not r.ok} <= {"unavailable"}
        await until(lambda: _decides(caller), 3, "decisions again")


async def _decides(caller: Foreign, tenant: str = "acme") -> bool:
    reply = await caller.ask(task(tenant))
    return reply.ok and "degraded" not in reply.decision


async def test_a_full_store_is_unavailable_and_recovers(own: Own) -> None:
    """Out of memory: nothing is half written, everybody is told, and it goes on when there is room."""
    fleet, caller = await own(pods=1, policies=ACME)
    assert (await caller.ask(task("acme"))).ok
    await fleet.redis("CONFIG", "SET", "maxmemory", "1")
    replies = await caller.all([task("acme", f"full-{n}") for n in range(20)])
    assert {r.error["code"] for r in replies} == {"unavailable"}
    await fleet.redis("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: _decides(caller), 3, "decisions again")
    replies = await caller.all([task("acme", f"full-{n}") for n in range(20)])
    assert not any("replayed" in r.context for r in replies)


@pytest.mark.parametrize("how", ["full", "replica"])
async def test_a_store_that_refuses_every_call_is_an_outage(own: Own, how: str) -> None:
    """Full, or demoted: one critical alert and one line in the log, not one a call; degraded decisions of that time are
    in the log of their tenant when it is over."""
    fleet, caller = await own(pods=1, policies=POLICIES)
    alerts = await caller.watch(ALERTS)
    assert (await caller.ask(task("strict"))).ok
    assert (await caller.ask(task("lenient"))).ok
    begin = {"full": ("CONFIG", "SET", "maxmemory", "1"), "replica": ("REPLICAOF", "127.0.0.1", "1")}[how]
    end = {"full": ("CONFIG", "SET", "maxmemory", "0"), "replica": ("REPLICAOF", "NO", "ONE")}[how]
    await fleet.redis(*begin)

    async def alerted() -> bool:
        assert (await caller.ask(task("strict"))).error["code"] == "unavailable"
        return bool(alerts.where(component="store"))

    await until(alerted, 10, "an alert")
    (away,) = alerts.where(component="store")
    assert away["severity"] == "critical"
    assert away["metadata"]["reason"]
    degraded = await caller.ask(task("lenient", "meanwhile"))
    assert degraded.decision["degraded"] is True
    (pod,) = fleet.pods
    assert len(pod.logged("store.refuses")) == 1
    await fleet.redis(*end)
    await until(lambda: _decides(caller, "strict"), 5, "decisions again")
    await alerts.until(lambda a: a["alert_id"] == away["alert_id"] and a["metadata"].get("resolved") is True)
    assert len(pod.logged("store.back")) == 1

    async def written() -> bool:
        return "decision.degraded" in await fleet.actions("lenient", "meanwhile")

    await until(written, 5, "the degraded decision is audited")


async def test_an_unknown_tenant_is_answered_while_the_store_is_frozen(own: Own) -> None:
    """Its policies are not in the pod and cannot be read: `unavailable` after the second that a load may take."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    assert (await caller.ask(task("strict"))).ok
    async with frozen(fleet):
        started = time.monotonic()
        replies = await caller.all([task("plain") for _ in range(10)])
        assert time.monotonic() - started < 2
        assert {r.error["code"] for r in replies} == {"unavailable"}


async def test_a_lookup_is_answered_while_the_store_is_frozen(own: Own) -> None:
    """get_decision says `unavailable`; the backpressure status needs no store."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    assert (await caller.ask(task("strict", "r-1"))).ok
    async with frozen(fleet):
        started = time.monotonic()
        reply = await caller.ask({"tenant_id": "strict", "request_id": "r-1"}, subject=GET_DECISION)
        assert reply.error["code"] == "unavailable"
        assert time.monotonic() - started < 2
        assert (await caller.ask({}, subject=BACKPRESSURE)).body["success"] is True


async def test_results_wait_for_a_frozen_store(own: Own) -> None:
    """A result that comes while the store is away is settled, once, when it is back; nothing is pulled in between."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK)
    usage = await caller.watch(USAGE)
    assigned = await caller.watch("caf.exec.assign.v1")
    replies = await caller.all([task("plain", push_assignment=True) for _ in range(20)])
    works = await assigned.many(20)
    async with frozen(fleet):
        for work in works:
            await caller.tell(RESULT, success(work))
        assert (await caller.ask(task("plain"))).error["code"] == "unavailable"
        await until(lambda: _paused(fleet, 1), 10, "the consumers pause")
    await usage.many(20, 15)
    await until(lambda: _paused(fleet, 0), 10, "the consumers go on")
    assert {u["usage_id"] for u in usage.seen} == {r.context["assignment_id"] for r in replies}
    actions = await fleet.actions("plain")
    assert actions.count("result.settled") == 20
    assert await fleet.total("router_dead_letters_total") == 0


async def _paused(fleet: Fleet, value: int) -> bool:
    return (await fleet.pods[0].metrics())["router_consumers_paused"] == value


async def test_a_pod_ends_in_time_while_the_store_is_frozen(own: Own) -> None:
    """SIGTERM with Redis away: exit code 0 within the drain time."""
    fleet, caller = await own(pods=1, policies=POLICIES, env=QUICK | {"ROUTER_DRAIN_TIMEOUT": "3s"})
    assert (await caller.ask(task("lenient"))).ok
    async with frozen(fleet):
        await caller.all([task("lenient") for _ in range(10)])
        started = time.monotonic()
        assert await fleet.pods[0].stop() == 0
        assert time.monotonic() - started < 6


async def test_a_pod_ends_in_time_without_nats(own: Own) -> None:
    """SIGTERM with NATS away: likewise."""
    fleet, caller = await own(pods=1, policies=ACME, env={"ROUTER_DRAIN_TIMEOUT": "3s"})
    assert (await caller.ask(task("acme"))).ok
    await asyncio.to_thread(fleet.nats.kill)
    started = time.monotonic()
    assert await fleet.pods[0].stop() == 0
    assert time.monotonic() - started < 8


async def test_damaged_keys_cost_one_tenant_its_answers_only(own: Own) -> None:
    """Keys of a wrong type or nonsense: an error for each request of that tenant, its neighbours are decided."""
    fleet, caller = await own(pods=1, policies=ACME)
    assert (await caller.ask(task("acme"))).ok
    keys = [fleet.keys.tenant(f"damaged-{n}") for n in range(4)]
    await fleet.redis("SET", keys[0].policies, "no hash")
    await fleet.redis("SET", keys[1].head, "x")
    await fleet.redis("HSET", keys[2].policies, "default", "no record")
    await fleet.redis("HSET", keys[3].policies, "default", b"\x01" + bytes(20) + b"{}")
    bodies = [task(f"damaged-{n % 4}") if n % 2 else task("acme") for n in range(40)]
    replies = await caller.all([*bodies, *(task(f"damaged-{n}") for n in range(4))])
    assert all(r.ok for r in replies[:40:2])
    assert not any(r.ok for r in [*replies[1:40:2], *replies[40:]])
    await fleet.redis("SET", fleet.keys.tenant("other").audit, "no stream")
    replies = await caller.all([task(t) for t in ("acme", "other") * 10])
    assert [r.ok for r in replies] == [True, False] * 10
    assert {r.error["code"] for r in replies[1::2]} == {"internal"}
    assert (await fleet.pods[0].metrics())["router_in_flight"] == 0


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", b"\x09" + bytes(80), b"\x01" + b"\xff" * 80, None],
    ids=["empty", "short", "format", "noise", "another type"],
)
async def test_a_damaged_task_stops_no_other(own: Own, damage: bytes | None) -> None:
    """A record that cannot be read: its result settles nothing, its deadline ends nothing, all others go on."""
    fleet, caller = await own(pods=1, policies=ACME)
    usage, assigned = await caller.watch(USAGE), await caller.watch("caf.exec.assign.v1")
    once = {"deadline_ms": 1000, "retry": {"max_attempts": 1}}
    bad = await caller.ask(task("acme", "bad", push_assignment=True, options=once))
    await assigned.one(request_id="bad")
    await until(lambda: _published(fleet, "bad"), 5, "marked as published")
    key = fleet.keys.task(UUID(bad.context["assignment_id"]).bytes)
    await fleet.redis("DEL", key)
    await (fleet.redis("HSET", key, "a", "b") if damage is None else fleet.redis("SET", key, damage))
    inbox = caller.client.new_inbox()
    final_results = await caller.core(inbox)
    late = await caller.ask(task("acme", "late", push_assignment=True, options=once | {"result_subject": inbox}))
    good = [await caller.ask(task("acme", push_assignment=True)) for _ in range(5)]
    works = [await assigned.one(assignment_id=r.context["assignment_id"]) for r in [bad, *good]]
    for work in works:
        await caller.tell(RESULT, success(work))
    for reply in good:
        await usage.one(5, assignment_id=reply.context["assignment_id"])
    assert (await final_results.one(6))["assignment_id"] == late.context["assignment_id"]
    assert usage.where(request_id="bad") == []
    lookup = await caller.ask({"tenant_id": "acme", "request_id": "bad"}, subject=GET_DECISION)
    assert lookup.ok or lookup.error["code"] in {"unavailable", "internal"}
    assert (await fleet.pods[0].readyz())[0] == 200


async def _published(fleet: Fleet, request_id: str) -> bool:
    return "assignment.published" in await fleet.actions("acme", request_id)


async def test_a_deadline_that_cannot_be_written_is_told(own: Own) -> None:
    """A damaged lease key: counted and logged at each look, and written when the key is mended."""
    fleet, caller = await own(pods=1)
    tenant = await fleet.tenant({"version": "1.0", "providers": [{"name": "only", "weight": 1, "max_concurrency": 5}]})
    lease = fleet.keys.tenant(tenant).lease(provider_entry("only"))
    once = {"deadline_ms": 1000, "retry": {"max_attempts": 1}}
    assert (await caller.ask(task(tenant, "r1", push_assignment=True, options=once))).ok
    await fleet.redis("DEL", lease)
    await fleet.redis("SET", lease, "damaged")

    async def counted() -> bool:
        return bool(await fleet.total("router_store_row_faults_total") > 0)

    await until(counted, 10, "the fault is counted")
    await fleet.redis("DEL", lease)

    async def written() -> bool:
        return "assignment.timed_out" in await fleet.actions(tenant, "r1")

    await until(written, 15, "the deadline is written")


async def test_a_receipt_that_cannot_be_written_comes_again(own: Own) -> None:
    """A damaged lease key under a rejection: once it is mended the next attempt begins, long before the deadline."""
    fleet, caller = await own(pods=1)
    providers = [{"name": n, "weight": w, "max_concurrency": 5} for n, w in (("first", 99), ("second", 1))]
    tenant = await fleet.tenant({"version": "1.0", "providers": providers})
    assigned = await caller.watch("caf.exec.assign.v1")
    options = {"deadline_ms": 60_000}
    assert (await caller.ask(task(tenant, "r1", push_assignment=True, options=options))).ok
    work = await assigned.one(tenant_id=tenant)
    lease = fleet.keys.tenant(tenant).lease(provider_entry(work["executor"]["provider_id"]))
    await fleet.redis("DEL", lease)
    await fleet.redis("SET", lease, "damaged")
    await caller.tell(ACK, {"assignment_id": work["assignment_id"], "status": "rejected", "reason": "full"})

    async def counted() -> bool:
        return bool(await fleet.total("router_store_row_faults_total") > 0)

    await until(counted, 10, "the fault is counted")
    await fleet.redis("DEL", lease)
    await assigned.one(15, tenant_id=tenant, attempt=2)
