"""Callers that walk the fallbacks by themselves: each result settles the decision of the step that did the work."""

from collections import Counter
from typing import Any

import pytest

from tests.fleet.foreign import RESULT, USAGE, Body, Foreign, task
from tests.fleet.harness import Document, Fleet, until

FAILED = {"status": "503", "current_provider": "alpha"}
METERED = {"meter": True}
WALK: Document = {
    "version": "1.0",
    "providers": [
        {"name": "alpha", "weight": 100, "expected_cost": 0.01, "max_concurrency": 5},
        {"name": "beta", "weight": 0, "expected_cost": 0.02, "max_concurrency": 5},
        {"name": "gamma", "weight": 0, "expected_cost": 0.03},
    ],
    "fallbacks": [
        {"when": {"status": ["5xx"]}, "to": "beta"},
        {"when": {"status": ["timeout"]}, "to": "gamma"},
        {"when": {"status": ["rate_limited"]}, "retry": 2, "to": "beta"},
    ],
    "circuit_breaker": {"enabled": True, "failure_threshold": 1, "timeout_ms": 60_000},
}


async def walked(caller: Foreign, tenant: str, name: str, *contexts: Body | None, **more: Any) -> list[Body]:
    """The decisions of the steps, in order; None: the step without a context."""
    found = []
    for context in contexts:
        body = task(tenant, name, options=METERED, **more) | ({} if context is None else {"context": context})
        found.append((await caller.ask(body)).decision)
    return found


def report(tenant: str, name: str, status: str = "success", **more: Any) -> Body:
    """A caller's result that names its request."""
    return {"version": "1", "tenant_id": tenant, "request_id": name, "status": status} | more


async def audited(fleet: Fleet, tenant: str, **wanted: int) -> Counter[str]:
    """The tenant's audit actions once there are so many `result_settled` and so on."""
    counts = {name.replace("_", ".", 1): n for name, n in wanted.items()}

    async def look() -> Counter[str] | None:
        found = Counter(await fleet.actions(tenant))
        return found if all(found[name] >= n for name, n in counts.items()) else None

    found: Counter[str] = await until(look, 10, f"{counts} in the audit of {tenant}")
    assert {name: found[name] for name in counts} == counts
    return found


async def test_a_success_of_a_step_is_metered_on_its_provider(fleet: Fleet, caller: Foreign) -> None:
    """Alpha failed and nobody said so; beta's success is beta's usage, and alpha's decision stays open."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    first, second = await walked(caller, tenant, "r", None, FAILED)
    assert [d["provider_id"] for d in (first, second)] == ["alpha", "beta"]
    await caller.tell(RESULT, report(tenant, "r", provider_id="beta", cost=0.5))
    metered = await usage.one(tenant_id=tenant)
    assert (metered["provider_id"], metered["usage_id"]) == ("beta", second["decision_id"])
    await audited(fleet, tenant, result_settled=1, result_duplicate=0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_every_steps_result_counts(fleet: Fleet, caller: Foreign, order: tuple[int, int]) -> None:
    """Alpha's error and beta's success, in both orders: both settled, alpha's breaker open, one usage, leases free."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    _, second = await walked(caller, tenant, "r", None, FAILED)
    results = [
        report(tenant, "r", "error", provider_id="alpha", error_code=503),
        report(tenant, "r", provider_id="beta", cost=0.5),
    ]
    for n in order:
        await caller.tell(RESULT, results[n])
    metered = await usage.one(tenant_id=tenant)
    assert (metered["provider_id"], metered["usage_id"]) == ("beta", second["decision_id"])
    await audited(fleet, tenant, result_settled=2, breaker_opened=1, result_duplicate=0)
    keys = fleet.keys.tenant(tenant)
    leases = [key async for page in fleet.nodes.pages(keys.prefix + b"c:*", 100) for key in page]
    assert [await fleet.redis("ZCARD", key) for key in leases] == [0] * len(leases)


async def test_the_context_names_the_step(fleet: Fleet, caller: Foreign) -> None:
    """Of three steps, each is found by the context that it was asked with, the first by its own; a provider told
    beside it does not matter."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    contexts: list[Body] = [
        {"retry_attempts": 0},
        {"status": 503, "current_provider": "alpha"},
        {"status": "timeout", "current_provider": "beta", "retry_attempts": 1},
    ]
    made = await walked(caller, tenant, "r", *contexts)
    assert [d["provider_id"] for d in made] == ["alpha", "beta", "gamma"]
    for context in reversed(contexts):
        await caller.tell(RESULT, report(tenant, "r", context=context | {"session_id": "s"}, provider_id="worker-7"))
    found = await usage.many(3, tenant_id=tenant)
    assert {u["usage_id"]: u["provider_id"] for u in found} == {d["decision_id"]: d["provider_id"] for d in made}
    await audited(fleet, tenant, result_settled=3)


async def test_the_newest_step_of_a_provider_is_settled_first(fleet: Fleet, caller: Foreign) -> None:
    """The policy chose alpha twice: two results that name alpha settle the newer decision, then the older one; a third
    one is a duplicate."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    limited = {"status": "rate_limited", "current_provider": "alpha"}
    first, second = await walked(caller, tenant, "r", None, limited)
    assert first["provider_id"] == second["provider_id"] == "alpha"
    for cost, settled in ((0.1, 1), (0.2, 2)):
        await caller.tell(RESULT, report(tenant, "r", provider_id="alpha", cost=cost))
        await audited(fleet, tenant, result_settled=settled)
    await caller.tell(RESULT, report(tenant, "r", provider_id="alpha", cost=0.3))
    await audited(fleet, tenant, result_duplicate=1)
    found = await usage.many(2, tenant_id=tenant)
    assert {u["usage_id"]: u["cost"] for u in found} == {second["decision_id"]: 0.1, first["decision_id"]: 0.2}


async def test_a_result_that_fits_several_steps_is_a_dead_letter(fleet: Fleet, caller: Foreign) -> None:
    """Without a provider while two are open, or with one that no step chose: nothing is settled, and the dead letter
    names the decisions. With one open, it is settled."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    letters = await caller.watch(f"{RESULT}.dlq")
    made = await walked(caller, tenant, "r", None, FAILED)
    ids = {d["decision_id"] for d in made}
    for told in ({}, {"provider_id": "gamma"}):
        await caller.tell(RESULT, report(tenant, "r", cost=0.5, **told))
    found = await letters.many(2, error_code="AMBIGUOUS_STEP", tenant_id=tenant)
    assert all(set(x["context"]["decision_ids"]) == ids for x in found)
    assert all(i in x["reason"] for x in found for i in ids)
    assert usage.where(tenant_id=tenant) == []
    await caller.tell(RESULT, report(tenant, "r", "error", provider_id="alpha"))
    await audited(fleet, tenant, result_settled=1)
    await caller.tell(RESULT, report(tenant, "r", cost=0.5))
    assert (await usage.one(tenant_id=tenant))["provider_id"] == "beta"


async def test_an_idempotency_key_has_steps_as_well(fleet: Fleet, caller: Foreign) -> None:
    """The identity is the key: results that name it, or a decision_id, find their step."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    first, second = await walked(caller, tenant, "r", None, FAILED, idempotency_key="k")
    named = {"version": "1", "tenant_id": tenant, "status": "success", "idempotency_key": "k"}
    await caller.tell(RESULT, named | {"provider_id": "beta", "cost": 0.5})
    await caller.tell(RESULT, {k: v for k, v in named.items() if k != "idempotency_key"} | {
        "decision_id": first["decision_id"], "cost": 0.25
    })  # fmt: skip
    found = await usage.many(2, tenant_id=tenant)
    assert {u["usage_id"]: (u["provider_id"], u["cost"]) for u in found} == {
        second["decision_id"]: ("beta", 0.5),
        first["decision_id"]: ("alpha", 0.25),
    }


async def test_a_step_that_was_dispatched_counts_by_its_task(fleet: Fleet, caller: Foreign) -> None:
    """The first step was pushed and has ended; a result without assignment_id is of the step that the caller runs."""
    tenant, usage = await fleet.tenant(WALK), await caller.watch(USAGE)
    once = {"retry": {"max_attempts": 1}}
    pushed = (await caller.ask(task(tenant, "r", push_assignment=True, options=once))).context
    await caller.tell(
        RESULT, {"version": "1", "assignment_id": pushed["assignment_id"], "status": "error", "error_code": "503"}
    )
    await audited(fleet, tenant, result_settled=1)
    (second,) = await walked(caller, tenant, "r", FAILED)
    await caller.tell(RESULT, report(tenant, "r", cost=0.5))
    metered = await usage.one(tenant_id=tenant)
    assert (metered["provider_id"], metered["usage_id"]) == ("beta", second["decision_id"])


async def test_more_steps_than_the_index_keeps(fleet: Fleet, caller: Foreign) -> None:
    """64 steps are found by their provider; a later one by its decision_id or its context, and no result of it settles
    another."""
    unbounded = [{k: v for k, v in p.items() if k != "max_concurrency"} for p in WALK["providers"]]
    tenant, usage = await fleet.tenant(WALK | {"providers": unbounded}), await caller.watch(USAGE)
    letters = await caller.watch(f"{RESULT}.dlq")
    steps: list[Body] = [FAILED | {"retry_attempts": n} for n in range(64)]
    await walked(caller, tenant, "r", *steps)
    late = {"status": "timeout", "current_provider": "beta"}
    (last,) = await walked(caller, tenant, "r", late)
    assert last["provider_id"] == "gamma"
    await caller.tell(RESULT, report(tenant, "r", provider_id="gamma", cost=0.5))
    await letters.one(error_code="AMBIGUOUS_STEP", tenant_id=tenant)
    await caller.tell(RESULT, report(tenant, "r", context=late, cost=0.5))
    assert (await usage.one(tenant_id=tenant))["usage_id"] == last["decision_id"]
    await audited(fleet, tenant, result_settled=1)
