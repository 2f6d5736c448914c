"""Results teach the whole fleet how fast its providers are (expected_latency_ms of a decision)."""

from collections import Counter
from itertools import count

from tests.fleet.conftest import Own
from tests.fleet.foreign import RESULT, Foreign, task
from tests.fleet.harness import Document, Fleet, until

FRESH_S = 5.0
BEST: Document = {
    "version": "1.0",
    "selection": "best_score",
    "providers": [
        {"name": "alpha", "weight": 50, "expected_latency_ms": 100},
        {"name": "beta", "weight": 50, "expected_latency_ms": 300},
    ],
}


async def reported(caller: Foreign, tenant: str, latency_ms: int, times: int) -> None:
    """So many decisions that their caller ran in so many milliseconds."""
    for _ in range(times):
        reply = await caller.ask(task(tenant))
        done = {"version": "1", "tenant_id": tenant, "decision_id": reply.decision["decision_id"]}
        await caller.tell(RESULT, done | {"status": "success", "latency_ms": latency_ms, "job": {"type": "chat"}})


async def test_results_of_a_slow_provider_move_the_traffic_of_both_pods(fleet: Fleet, caller: Foreign) -> None:
    """Within 5 s every pod prefers the other one, tells the refined latency, and audits which figures it went by."""
    tenant = await fleet.tenant(BEST)
    numbers = count()

    async def preferred() -> dict[str, str]:
        """Who is chosen by each pod, as far as one of these answers came from it."""
        replies = await caller.all([task(tenant, f"look-{next(numbers)}") for _ in range(16)])
        return {r.pod: r.decision["provider_id"] for r in replies}

    assert set((await preferred()).values()) == {"alpha"}
    await reported(caller, tenant, 8_000, 4)

    async def moved() -> bool:
        found = await preferred()
        return len(found) == len(fleet.pods) and set(found.values()) == {"beta"}

    await until(moved, FRESH_S + 1, "both pods prefer beta")
    replies = await caller.all([task(tenant, f"after-{i}") for i in range(8)])
    assert {r.decision["reason"] for r in replies} == {"best_score"}
    assert {r.decision["expected_latency_ms"] for r in replies} == {300}
    entries = await fleet.audit(tenant)
    versions = Counter(
        e.details["figures_version"] for e in entries if str(e.details.get("request_id")).startswith("after-")
    )
    assert len(versions) == 1
    replay = await caller.ask(task(tenant, "look-0"))
    assert replay.decision["provider_id"] == "alpha"
    assert replay.context["replayed"] is True


async def test_a_dispatched_tasks_result_refines_what_is_expected(fleet: Fleet, caller: Foreign) -> None:
    """Latency and cost of later decisions lie between the policy's and the worker's, also under `weighted`."""
    policy: Document = {
        "version": "1.0",
        "providers": [{"name": "only", "weight": 100, "expected_latency_ms": 100, "expected_cost": 0.01}],
    }
    tenant = await fleet.tenant(policy)
    reply = await caller.ask(task(tenant, push_assignment=True))
    assert (reply.decision["expected_latency_ms"], reply.decision["expected_cost"]) == (100, 0.01)
    told = {"version": "1", "assignment_id": reply.context["assignment_id"], "status": "success"}
    await caller.tell(RESULT, told | {"latency_ms": 300, "cost": 0.03, "job": {"type": "chat"}})

    async def refined() -> bool:
        decision = (await caller.ask(task(tenant))).decision
        return (decision["expected_latency_ms"], decision["expected_cost"]) == (200, 0.02)

    await until(refined, FRESH_S + 1, "decisions tell the refined figures")


async def test_a_tenant_that_comes_back_goes_by_its_figures_from_the_second_decision_on(own: Own) -> None:
    """To a pod that has not decided for it: alone, or many at once; one after the other, every one of them."""
    policy: Document = {"version": "1.0", "providers": [{"name": "only", "weight": 100, "expected_cost": 0.006}]}
    fleet, caller = await own(pods=1, policies={"default": {"default": policy}})
    reply = await caller.ask(task("default"))
    done = {"version": "1", "tenant_id": "default", "decision_id": reply.decision["decision_id"], "cost": 0.0003}
    await caller.tell(RESULT, done | {"status": "success", "job": {"type": "chat"}})

    async def learned() -> bool:
        return bool((await caller.ask(task("default"))).decision["expected_cost"] < 0.006)

    await until(learned, FRESH_S + 1, "the figures are learned")
    (pod,) = fleet.pods
    for together in (False, True):
        await pod.stop()
        await pod.start()
        asks = [task("default") for _ in range(12)]
        replies = await caller.all(asks) if together else [await caller.ask(body) for body in asks]
        costs = sorted((r.decision["expected_cost"] for r in replies), reverse=True)
        assert costs[0] == 0.006
        assert all(cost < 0.006 for cost in costs[1:]), costs
