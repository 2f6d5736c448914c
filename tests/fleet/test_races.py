"""The same answer from every pod, whatever comes at once (issue "done when")."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from router.store.decisions import decide_script
from router.store.tasks.store import claim_script
from tests.fleet.conftest import Own
from tests.fleet.foreign import Foreign, task
from tests.fleet.harness import PLAIN, Fleet, until


def limited(limit: int) -> dict[str, object]:
    """A policy with one request limit."""
    return PLAIN | {
        "limits": [{"id": "all", "scope": "tenant", "resource": "requests", "limit": limit, "window": "60s"}]
    }


async def test_two_hundred_duplicates_are_one_decision(fleet: Fleet, caller: Foreign) -> None:
    """200 at once over two pods: equal `decision`, one audit entry, one assignment."""
    tenant = await fleet.tenant()
    assigned = await caller.watch("caf.exec.assign.v1")
    replies = await caller.all([task(tenant, "twin", push_assignment=True)] * 200)
    assert len({r.pod for r in replies}) == 2
    assert all(r.decision == replies[0].decision for r in replies)
    assert len({r.context["assignment_id"] for r in replies}) == 1
    assert sum("replayed" not in r.context for r in replies) == 1
    await assigned.one(tenant_id=tenant)
    await until(lambda: _has(fleet, tenant, "assignment.published"), 5, "the assignment is marked as published")
    assert Counter(await fleet.actions(tenant)) == {"decision.made": 1, "assignment.published": 1}
    assert len(assigned.where(tenant_id=tenant)) == 1


async def _has(fleet: Fleet, tenant: str, action: str) -> bool:
    return action in await fleet.actions(tenant)


async def test_a_thousand_requests_against_a_limit_of_a_hundred(fleet: Fleet, caller: Foreign) -> None:
    """Exactly 100 are admitted over two pods, and every refusal says when to come back: by the limit, or by a pod that
    one tenant may not fill.
    """
    tenant = await fleet.tenant(limited(100))
    replies = await caller.all([task(tenant) for _ in range(1000)])
    assert len({r.pod for r in replies}) == 2
    assert sum(r.ok for r in replies) == 100
    refused = [r.error for r in replies if not r.ok]
    codes = Counter(e["code"] for e in refused)
    assert codes.keys() <= {"rate_limit_exceeded", "service_overloaded"}
    assert all(e["details"]["retry_after_ms"] > 0 for e in refused)
    assert Counter(await fleet.actions(tenant)) == {
        "decision.made": 100,
        "decision.refused": codes["rate_limit_exceeded"],
    }


async def test_a_decide_is_one_round_trip(own: Own) -> None:
    """50 decides one after the other are 50 calls of the script; nothing else is sent for them, audit included."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": limited(1000)}})
    assert (await caller.ask(task("acme"))).ok
    async with monitored(fleet) as seen:
        for _ in range(50):
            assert (await caller.ask(task("acme"))).ok
    sent = Counter(seen)
    assert sent.pop(DECIDE_CALL) == 50
    assert set(sent) <= BACKGROUND
    assert len(await fleet.audit("acme")) == 51


async def test_neighbours_share_a_round_trip(own: Own) -> None:
    """500 decides at once need far fewer calls."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": limited(1000)}})
    assert (await caller.ask(task("acme"))).ok
    async with monitored(fleet) as seen:
        assert all(r.ok for r in await caller.all([task("acme") for _ in range(500)]))
    assert 1 <= seen.count(DECIDE_CALL) <= 100


DECIDE_CALL = f"FCALL {decide_script().call[1].decode()}"
# The sweeper's look at what is due and at the outbox, which happens with and without requests; and our own end mark.
BACKGROUND = {f"EVALSHA {claim_script().sha.decode()}", "HRANDFIELD", "ECHO"}


@asynccontextmanager
async def monitored(fleet: Fleet) -> AsyncIterator[list[str]]:
    """Every command that clients send meanwhile, in the list after the block."""
    seen: list[str] = []
    await fleet.redis("ECHO", "connect before")
    async with Redis.from_url(fleet.valkey.url) as client, client.monitor() as monitor:
        yield seen
        await fleet.redis("ECHO", "the end")
        async for line in monitor.listen():
            if line["client_type"] == "lua":
                continue
            words = line["command"].split(" ")
            seen.append(" ".join(words[:2]) if words[0].upper() in {"EVALSHA", "FCALL"} else words[0].upper())
            if line["command"] == "ECHO the end":
                break
