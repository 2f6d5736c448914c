"""Attempts of one task, seen by a foreign client: errors, rejections and deadlines are followed within one budget."""

import asyncio

from tests.fleet.foreign import ACK, ASSIGN, RESULT, USAGE, Body, Foreign, success, task
from tests.fleet.harness import Document, Fleet, until
from tests.fleet.queries import state_of

TWO: Document = {
    "version": "1.0",
    "providers": [{"name": "first", "weight": 100, "priority": 1}, {"name": "second", "weight": 100}],
    "circuit_breaker": {"enabled": True, "failure_threshold": 100, "minimum_requests": 1000},
    "fallbacks": [{"when": {"status": ["timeout", "error", "5xx"]}, "retry": 1, "to": "second"}],
}
SOON = {"retry": {"max_attempts": 2, "backoff_ms": 1}}


def failed(work: Body, code: str = "HTTP_503") -> Body:
    """An error result."""
    return success(work, status="error", error_code=code)


async def begin(fleet: Fleet, caller: Foreign, policy: Document = TWO, **options: object) -> tuple[str, Body]:
    """The tenant and the first attempt of a pushed task `r` with a final result wanted."""
    tenant = await fleet.tenant(policy)
    assigned = await caller.watch(ASSIGN)
    reply = await caller.ask(task(tenant, "r", push_assignment=True, options=SOON | options))
    assert reply.ok, reply.body
    return tenant, await assigned.one(tenant_id=tenant, attempt=1)


async def attempt(caller: Foreign, tenant: str, number: int) -> Body:
    """One attempt's assignment."""
    return await (await caller.watch(ASSIGN)).one(tenant_id=tenant, attempt=number)


async def ended(caller: Foreign, tenant: str, state: str) -> Body:
    """The task, once it has ended so."""

    async def look() -> Body | None:
        found = await state_of(caller, tenant, "r")
        return found if found["state"] == state else None

    found: Body = await until(look, 8, f"task of {tenant} is {state}")
    return found


async def test_an_error_is_followed_by_the_rules_target(fleet: Fleet, caller: Foreign) -> None:
    """A new assignment_id, the same task_id, attempt 2, the other provider; one usage event, of the success."""
    tenant, first = await begin(fleet, caller)
    usage = await caller.watch(USAGE)
    await caller.tell(RESULT, failed(first))
    second = await attempt(caller, tenant, 2)
    assert (first["executor"]["provider_id"], second["executor"]["provider_id"]) == ("first", "second")
    assert second["decision"]["reason"] == "fallback"
    assert second["assignment_id"] != first["assignment_id"]
    assert second["task_id"] == first["task_id"]
    await caller.tell(RESULT, success(second))
    used = await usage.one(tenant_id=tenant)
    assert (used["usage_id"], used["provider_id"]) == (first["task_id"], "second")
    assert (await ended(caller, tenant, "succeeded"))["attempt"] == 2


async def test_a_rejection_is_followed_at_once(fleet: Fleet, caller: Foreign) -> None:
    """A worker that will not do it says so, and the next attempt begins without waiting for a deadline."""
    tenant, first = await begin(fleet, caller)
    await caller.tell(ACK, {"assignment_id": first["assignment_id"], "status": "rejected", "reason": "full"})
    assert (await attempt(caller, tenant, 2))["executor"]["provider_id"] == "second"


async def test_a_slow_provider_has_time_for_its_task(fleet: Fleet, caller: Foreign) -> None:
    """The deadline is five times what is expected of who gets the task: a fallback, and who stands in for another."""
    policy = TWO | {
        "providers": [
            {"name": "first", "weight": 100, "priority": 1, "expected_latency_ms": 70},
            {"name": "second", "weight": 100, "expected_latency_ms": 9_000},
        ],
        "circuit_breaker": {"enabled": True, "failure_threshold": 1, "timeout_ms": 60_000},
    }
    tenant, first = await begin(fleet, caller, policy)
    await caller.tell(RESULT, failed(first))
    second = await attempt(caller, tenant, 2)
    assigned = await caller.watch(ASSIGN)
    assert (await caller.ask(task(tenant, "stands-in", push_assignment=True))).decision["provider_id"] == "second"
    stands_in = await assigned.one(tenant_id=tenant, request_id="stands-in")
    for work, deadline_ms in ((first, 5_000), (second, 45_000), (stands_in, 45_000)):
        assert work["options"]["deadline_ms"] == work["job"]["payload"]["timeout_ms"] == deadline_ms
        assert work["deadline_at_ms"] - work["created_at_ms"] == deadline_ms


async def test_a_missed_deadline_is_followed(fleet: Fleet, caller: Foreign) -> None:
    """Nobody answers: attempt 2, then a final timeout for the caller."""
    final = await caller.core("_INBOX.attempts.deadline")
    tenant, _ = await begin(fleet, caller, deadline_ms=300, result_subject="_INBOX.attempts.deadline")
    assert (await attempt(caller, tenant, 2))["executor"]["provider_id"] == "second"
    told = await final.one()
    assert (told["ok"], told["status"], told["attempt"]) == (False, "timeout", 2)
    assert (await ended(caller, tenant, "timed_out"))["attempt"] == 2


async def test_the_budget_ends_it(fleet: Fleet, caller: Foreign) -> None:
    """Two attempts and no third; the caller hears of the second one's error, and nothing is metered."""
    final = await caller.core("_INBOX.attempts.budget")
    tenant, first = await begin(fleet, caller, result_subject="_INBOX.attempts.budget")
    await caller.tell(RESULT, failed(first))
    await caller.tell(RESULT, failed(await attempt(caller, tenant, 2), "HTTP_500"))
    told = await final.one()
    assert (told["ok"], told["error_code"], told["attempt"]) == (False, "HTTP_500", 2)
    await ended(caller, tenant, "failed")
    assigned = await caller.watch(ASSIGN)
    await assigned.many(2, tenant_id=tenant)
    assert assigned.where(tenant_id=tenant, attempt=3) == []


async def test_a_result_of_a_superseded_attempt_is_late(fleet: Fleet, caller: Foreign) -> None:
    """Attempt 1 succeeds after attempt 2 has begun: refused and audited; attempt 2 is what counts."""
    tenant, first = await begin(fleet, caller)
    await caller.tell(RESULT, failed(first))
    second = await attempt(caller, tenant, 2)
    await caller.tell(RESULT, success(first))

    async def late() -> bool:
        return "result.late" in await fleet.actions(tenant)

    await until(late, 8, "the late result is in the audit")
    assert (await state_of(caller, tenant, "r"))["state"] in ("new", "published", "accepted")
    await caller.tell(RESULT, success(second))
    await ended(caller, tenant, "succeeded")


async def test_no_provider_is_left(fleet: Fleet, caller: Foreign) -> None:
    """The only provider's breaker opens with the failure: the task ends and its caller is told why."""
    alone: Document = {
        "version": "1.0",
        "providers": [{"name": "only", "weight": 100}],
        "circuit_breaker": {"enabled": True, "failure_threshold": 1},
    }
    final = await caller.core("_INBOX.attempts.none")
    tenant, first = await begin(fleet, caller, alone, result_subject="_INBOX.attempts.none")
    await caller.tell(RESULT, failed(first))
    told = await final.one()
    assert (told["ok"], told["error_code"]) == (False, "ALL_PROVIDERS_FAILED")
    await ended(caller, tenant, "failed")


async def test_the_same_error_twice_is_one_attempt(fleet: Fleet, caller: Foreign) -> None:
    """A repeated result of attempt 1 begins no second next attempt."""
    tenant, first = await begin(fleet, caller, retry={"max_attempts": 3, "backoff_ms": 1})
    await asyncio.gather(*(caller.tell(RESULT, failed(first)) for _ in range(5)))
    second = await attempt(caller, tenant, 2)
    await caller.tell(RESULT, success(second))
    await ended(caller, tenant, "succeeded")
    assigned = await caller.watch(ASSIGN)
    await assigned.many(2, tenant_id=tenant)
    assert len(assigned.where(tenant_id=tenant)) == 2
