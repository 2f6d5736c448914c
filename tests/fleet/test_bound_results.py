"""Results and acks on a tenant's own subject: who may publish there settles that tenant's decisions and no others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.errors import Error
from nats.js.api import StreamConfig

from tests.cli.conftest import run_process
from tests.fleet.conftest import Own
from tests.fleet.foreign import ACK, ASSIGN, DECIDE, RESULT, USAGE, Body, Foreign, success, task
from tests.fleet.harness import PLAIN, Document, Fleet, until
from tests.nats_client import connect
from tests.servers import NatsProcess

FRAGILE: Document = {
    "version": "1.0",
    "providers": [{"name": "only", "weight": 100}],
    "circuit_breaker": {"enabled": True, "failure_threshold": 3, "timeout_ms": 60_000},
}
NAMED = {"version": "1", "status": "success", "cost": 0.5}


def bound(subject: str, tenant: str) -> str:
    """The subject of the tenant."""
    return f"{subject}.tenant.{tenant}"


async def breakers(fleet: Fleet, tenant: str) -> list[Any]:
    """The tenant's breakers that are not closed."""
    async with Foreign(fleet.nats.url) as client:
        reply = await client.ask({"tenant_id": tenant}, subject="beamline.router.v1.admin.get_circuit_breaker_states")
        return list(reply.body["states"])


@pytest.mark.parametrize("how", ["request_id", "idempotency_key", "decision_id"])
@pytest.mark.parametrize("named", [True, False], ids=["body names the tenant", "only the subject"])
async def test_a_bound_result_settles_by_name(fleet: Fleet, caller: Foreign, how: str, named: bool) -> None:
    """Metered for the tenant of the subject, whether or not the body names it too."""
    tenant = await fleet.tenant()
    usage = await caller.watch(USAGE)
    key = {"idempotency_key": f"key-of-{tenant}"} if how == "idempotency_key" else {}
    asked = task(tenant, options={"meter": True}, **key)
    reply = await caller.ask(asked)
    ids = {"request_id": asked["request_id"], "decision_id": reply.decision["decision_id"], **key}
    tenant_id = {"tenant_id": tenant} if named else {}
    await caller.tell(bound(RESULT, tenant), NAMED | {how: ids[how]} | tenant_id)
    assert (await usage.one(tenant_id=tenant))["cost"] == 0.5


async def test_bound_acks_and_results_move_a_task(fleet: Fleet, caller: Foreign) -> None:
    """By assignment_id, as workers report."""
    tenant = await fleet.tenant()
    works, usage = await caller.watch(ASSIGN), await caller.watch(USAGE)
    assert (await caller.ask(task(tenant, push_assignment=True))).ok
    work = await works.one(tenant_id=tenant)
    await caller.tell(bound(ACK, tenant), {"assignment_id": work["assignment_id"], "status": "accepted"})

    async def accepted() -> bool:
        return "assignment.accepted" in await fleet.actions(tenant)

    await until(accepted, 10, "the ack is applied")
    await caller.tell(bound(RESULT, tenant), success(work))
    assert (await usage.one(tenant_id=tenant))["assignment_id"] == work["assignment_id"]


async def test_a_tenant_with_dots_has_a_subject(own: Own) -> None:
    """The rest of the subject is the tenant."""
    _, caller = await own(pods=1, policies={"acme.eu.west": {"default": PLAIN}})
    usage = await caller.watch(USAGE)
    asked = task("acme.eu.west", options={"meter": True})
    assert (await caller.ask(asked)).ok
    await caller.tell(bound(RESULT, "acme.eu.west"), NAMED | {"request_id": asked["request_id"]})
    assert (await usage.one(tenant_id="acme.eu.west"))["cost"] == 0.5


@pytest.mark.parametrize("where", ["body", "header", "assignment", "decision"])
async def test_a_bound_result_cannot_settle_for_another_tenant(fleet: Fleet, caller: Foreign, where: str) -> None:
    """A dead letter, counted as a violation; the owner's task goes on and its breaker stays closed."""
    owner, thief = await fleet.tenant(FRAGILE), await fleet.tenant()
    works, letters = await caller.watch(ASSIGN), await caller.watch(f"{RESULT}.dlq")
    asked = task(owner, push_assignment=where == "assignment")
    reply = await caller.ask(asked)
    before = await fleet.total("router_isolation_violations_total")
    failed: Body = {"version": "1", "status": "error", "error_code": "SERVER_ERROR", "request_id": asked["request_id"]}
    headers = None
    match where:
        case "body":
            failed |= {"tenant_id": owner}
        case "header":
            headers = {"tenant_id": owner}
        case "assignment":
            failed |= {"assignment_id": (await works.one(tenant_id=owner))["assignment_id"]}
        case _:
            failed |= {"decision_id": reply.decision["decision_id"]}
    for _ in range(4):
        await caller.tell(bound(RESULT, thief), failed, headers)
    await letters.until(lambda x: x["original_subject"] == bound(RESULT, thief), 4)
    assert {x["error_code"] for x in letters.where(original_subject=bound(RESULT, thief))} == {"TENANT_FORBIDDEN"}
    assert await fleet.total("router_isolation_violations_total") == before + 4
    assert await breakers(fleet, owner) == []
    assert "result.settled" not in await fleet.actions(owner)


@pytest.mark.parametrize("tenant", ["no$pe", "ä", "a/b"])
async def test_a_subject_without_a_valid_tenant_settles_nothing(fleet: Fleet, caller: Foreign, tenant: str) -> None:
    """Also where the body names a valid one: a dead letter."""
    valid = await fleet.tenant()
    asked = task(valid)
    assert (await caller.ask(asked)).ok
    letters = await caller.watch(f"{RESULT}.dlq")
    await caller.tell(bound(RESULT, tenant), NAMED | {"tenant_id": valid, "request_id": asked["request_id"]})
    await letters.one(original_subject=bound(RESULT, tenant))
    assert "result.settled" not in await fleet.actions(valid)


async def test_results_by_name_may_be_kept_to_tenant_subjects(own: Own) -> None:
    """ROUTER_RESULTS_BY_NAME=tenant_subject: on the open subject they become dead letters and open no breaker; reports
    of workers, by assignment_id, are still taken there."""
    env = {"ROUTER_RESULTS_BY_NAME": "tenant_subject"}
    fleet, caller = await own(pods=1, policies={"acme": {"default": FRAGILE}}, env=env)
    letters, works, usage = [await caller.watch(s) for s in (f"{RESULT}.dlq", ASSIGN, USAGE)]
    asked = [task("acme") for _ in range(8)]
    replies = await caller.all(asked)
    for body, reply in zip(asked, replies, strict=True):
        failed: Body = {"tenant_id": "acme", "status": "error", "error_code": "SERVER_ERROR", "version": "1"}
        ids = {"request_id": body["request_id"], "decision_id": reply.decision["decision_id"]}
        await caller.tell(RESULT, failed | ids)
    refused = await letters.many(8, original_subject=RESULT)
    assert {x["error_code"] for x in refused} == {"TENANT_FORBIDDEN"}
    assert await breakers(fleet, "acme") == []
    assert await fleet.total("router_isolation_violations_total") == 0
    assert (await caller.ask(task("acme", push_assignment=True))).ok
    await caller.tell(RESULT, success(await works.one(tenant_id="acme")))
    await usage.one(tenant_id="acme")
    metered = task("acme", options={"meter": True})
    assert (await caller.ask(metered)).ok
    await caller.tell(bound(RESULT, "acme"), NAMED | {"request_id": metered["request_id"]})
    await usage.one(request_id=metered["request_id"])


async def test_a_bound_dead_letter_is_sent_again_to_its_tenants_subject(own: Own, tmp_path: Path) -> None:
    """Else an operator would lift the binding. It is found by the open subject too."""
    fleet, caller = await own(pods=1)
    await caller.tell(bound(RESULT, "acme"), {"status": "nonsense"})

    async def listed() -> list[Body]:
        ran = await run_process("dlq", "list", "--subject", RESULT, "--nats", fleet.nats.url, "--json", cwd=tmp_path)
        return list(json.loads(ran.out)) if ran.out else []

    (letter,) = await until(listed, 15, "the dead letter is stored")
    assert letter["original_subject"] == bound(RESULT, "acme")
    heard = await caller.core(bound(RESULT, "acme"))
    ran = await run_process("dlq", "redrive", str(letter["id"]), "--nats", fleet.nats.url, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert await heard.one(status="nonsense")


USERS = f"""
authorization {{ users: [
  {{ user: router, password: of-the-router }}
  {{ user: acme, password: acme, permissions: {{
     publish: ["{DECIDE}.acme", "{RESULT}.tenant.acme", "{ACK}.tenant.acme"], subscribe: ["_INBOX.>"] }} }}
] }}
"""


@pytest.fixture
async def guarded(servers: None, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet behind NATS with users: the pod's, and one that may ask and report for acme only."""
    server = NatsProcess(tmp_path / "nats", extra=USERS)
    env = {"ROUTER_NATS_USER": "router", "ROUTER_NATS_PASSWORD": "of-the-router"}
    policies = {"acme": {"default": FRAGILE}, "globex": {"default": FRAGILE}}
    async with Fleet(tmp_path / "own", pods=1, env=env, policies=policies, nats=server) as fleet:
        yield fleet


async def test_nats_permissions_hold_a_reporter_to_its_tenant(guarded: Fleet) -> None:
    """It settles acme's decision; the server refuses the open subjects and those of others."""
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def heard(fault: Exception) -> None:
        refused.put_nowait(str(fault).lower())

    client = await connect(guarded.nats.url, user="acme", password="acme", error_cb=heard)  # noqa: S106
    try:
        asked = task("acme")
        reply = orjson.loads((await client.request(f"{DECIDE}.acme", orjson.dumps(asked), timeout=5)).data)
        assert reply["ok"] is True
        for subject in (RESULT, bound(RESULT, "globex"), ACK, bound(ACK, "globex"), bound(RESULT, "acme.x")):
            await client.publish(subject, orjson.dumps(NAMED | {"request_id": asked["request_id"]}))
            assert subject in await asyncio.wait_for(refused.get(), 5)
        await client.publish(bound(RESULT, "acme"), orjson.dumps(NAMED | {"request_id": asked["request_id"]}))

        async def settled() -> bool:
            return "result.settled" in await guarded.actions("acme")

        await until(settled, 10, "the result is settled")
    except Error as fault:
        raise AssertionError(refused) from fault
    finally:
        await client.close()


async def test_a_stream_of_the_version_before_is_a_difference(servers: None, tmp_path: Path) -> None:
    """The pod is ready and settles what comes on the open subject; the log has the command that adds the new one, and
    when it was run, bound results are settled."""
    server = NatsProcess(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    client = await connect(server.url)
    js = client.jetstream()
    await js.add_stream(name="RESULT", subjects=[RESULT], max_age=3600)
    await js.add_stream(name="ACK", subjects=[ACK], max_age=3600)
    fleet = Fleet(tmp_path / "own", pods=1, policies={"acme": {"default": PLAIN}}, nats=server)
    async with fleet, Foreign(server.url) as caller:
        usage = await caller.watch(USAGE)
        metered = [task("acme", options={"meter": True}) for _ in range(2)]
        assert all(r.ok for r in await caller.all(metered))
        await caller.tell(RESULT, NAMED | {"tenant_id": "acme", "request_id": metered[0]["request_id"]})
        await usage.one(request_id=metered[0]["request_id"])
        lines = [line["message"] for line in fleet.pods[0].logged("stream.differs")]
        for name, subject in (("RESULT", RESULT), ("ACK", ACK)):
            command = f"nats stream edit {name} --subjects='{subject},{subject}.tenant.>'"
            assert [line for line in lines if command in line], lines
        assert await fleet.total("router_stream_differences") == 2
        assert "degraded" not in {k for k, v in (await fleet.pods[0].readyz())[1].items() if v}
        await js.update_stream(StreamConfig(name="RESULT", subjects=[RESULT, bound(RESULT, ">")]), max_age=3600)
        await caller.tell(bound(RESULT, "acme"), NAMED | {"request_id": metered[1]["request_id"]})
        await usage.one(request_id=metered[1]["request_id"])
    await client.close()
