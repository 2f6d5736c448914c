"""One tenant cannot act or ask in the name of another: refused, counted, alerted. NATS holds a client to its tenant."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from nats.errors import Error

from router.domain.ids import from_text, partition_in
from tests.fleet.foreign import (
    ACK,
    ALERTS,
    ASSIGN,
    DECIDE,
    GET_DECISION,
    RESULT,
    USAGE,
    Body,
    Foreign,
    Reply,
    success,
    task,
)
from tests.fleet.harness import PLAIN, Fleet, until
from tests.nats_client import connect
from tests.servers import NatsProcess

HEADER = {"tenant_id": "somebody-else"}


async def counted(fleet: Fleet, door: str) -> float:
    """Violations at this door, on all pods."""
    name = f'router_isolation_violations_total{{door="{door}"}}'
    return sum([(await p.metrics())[name] for p in fleet.pods])


async def told(fleet: Fleet, caller: Foreign, door: str, before: float, scope: str) -> None:
    """One violation more, and an alert of this scope."""

    async def one_more() -> bool:
        return await counted(fleet, door) == before + 1

    await until(one_more, 10, "it is counted")
    watch = await caller.watch(ALERTS)
    (alert,) = (await watch.until(lambda a: a["alert_id"].startswith(f"isolation_violation:{scope}:")))[:1]
    assert (alert["severity"], alert["metadata"]["door"]) == ("critical", door)


def forbidden(reply: Reply) -> None:
    """It is refused as such."""
    assert reply.error["code"] == "unauthorized"
    assert reply.error["details"]["intake_error_code"] == "TENANT_FORBIDDEN"


@pytest.mark.parametrize("how", ["header", "subject"])
async def test_a_request_that_names_two_tenants(fleet: Fleet, caller: Foreign, how: str) -> None:
    """Header or subject against body: no decision, and nothing in the log of either."""
    tenant, other = await fleet.tenant(), await fleet.tenant()
    before = await counted(fleet, "decide")
    if how == "header":
        forbidden(await caller.ask(task(tenant), {"tenant_id": other}))
    else:
        forbidden(await caller.ask(task(tenant), subject=f"{DECIDE}.{other}"))
    await told(fleet, caller, "decide", before, "door/decide")
    assert await fleet.actions(tenant) == await fleet.actions(other) == []


async def test_a_query_that_names_two_tenants(fleet: Fleet, caller: Foreign) -> None:
    """Header against body: the decision is not told, although one of them owns it."""
    tenant = await fleet.tenant()
    reply = await caller.ask(task(tenant))
    before = await counted(fleet, "query")
    body = {"tenant_id": tenant, "decision_id": reply.decision["decision_id"]}
    forbidden(await caller.ask(body, HEADER, subject=GET_DECISION))
    await told(fleet, caller, "query", before, "door/query")


async def test_a_query_is_bound_to_the_tenant_of_its_subject(fleet: Fleet, caller: Foreign) -> None:
    """`get_decision.<tenant>` finds the tenant's own decision, by every id; another body's tenant is a violation."""
    tenant, other = await fleet.tenant(), await fleet.tenant()
    own, foreign = await caller.ask(task(tenant)), await caller.ask(task(other))
    bound = f"{GET_DECISION}.{tenant}"
    for query in ({"decision_id": own.decision["decision_id"]}, {"request_id": own.context["request_id"]}):
        for body in (query, query | {"tenant_id": tenant}):
            assert (await caller.ask(body, subject=bound)).decision["decision_id"] == own.decision["decision_id"]
    before = await counted(fleet, "query")
    asked = {"tenant_id": other, "request_id": foreign.context["request_id"]}
    forbidden(await caller.ask(asked, subject=bound))
    forbidden(await caller.ask({"request_id": "x"}, {"tenant_id": other}, subject=bound))
    for query in ({"request_id": foreign.context["request_id"]}, {"message_id": foreign.context["request_id"]}):
        assert (await caller.ask(query, subject=bound)).error["code"] == "decision_not_found"
    assert await counted(fleet, "query") == before + 2


async def _of_partition(fleet: Fleet, partition: int, *, same: bool) -> str:
    for _ in range(2_000):
        tenant = await fleet.tenant()
        if (fleet.keys.tenant(tenant).partition == partition) is same:
            return tenant
    raise AssertionError("no such tenant")


@pytest.mark.parametrize("same", [False, True], ids=["other partition", "same partition, dispatched"])
async def test_a_query_for_another_tenants_decision(fleet: Fleet, caller: Foreign, same: bool) -> None:
    """Not found, in the words for an id that is nobody's; but only the exact id of another tenant's is a violation."""
    tenant = await fleet.tenant()
    decision = (await caller.ask(task(tenant, push_assignment=same))).decision["decision_id"]
    raw = from_text(decision)
    assert raw is not None
    thief = await _of_partition(fleet, partition_in(raw), same=same)
    before = await counted(fleet, "query")
    theft = await caller.ask({"tenant_id": thief, "decision_id": decision}, subject=GET_DECISION)
    await told(fleet, caller, "query", before, "door/query")
    nobodys = f"{decision[:-4]}{'0000' if decision[-4:] != '0000' else '1111'}"
    reply = await caller.ask({"tenant_id": thief, "decision_id": nobodys}, subject=GET_DECISION)
    assert reply.error == theft.error
    assert reply.error["code"] == "decision_not_found"
    own = await caller.ask({"tenant_id": tenant, "decision_id": decision}, subject=GET_DECISION)
    assert own.decision["decision_id"] == decision
    assert await counted(fleet, "query") == before + 1


async def test_another_tenants_names_find_nothing(fleet: Fleet, caller: Foreign) -> None:
    """The same request_id and message_id of another tenant are other requests; its audit has no trace of the first."""
    tenant, other = await fleet.tenant(), await fleet.tenant()
    reply = await caller.ask(task(tenant, "shared-name"))
    query: Body = {"tenant_id": other, "request_id": "shared-name"}
    assert (await caller.ask(query, subject=GET_DECISION)).error["code"] == "decision_not_found"
    second = await caller.ask(task(other, "shared-name"))
    assert "replayed" not in second.context
    assert second.decision["decision_id"] != reply.decision["decision_id"]
    assert {e.details["decision_id"] for e in await fleet.audit(other)} == {second.decision["decision_id"]}


@pytest.mark.parametrize(("subject", "door"), [(RESULT, "result"), (ACK, "receipt")])
async def test_a_report_on_another_tenants_task(fleet: Fleet, caller: Foreign, subject: str, door: str) -> None:
    """A dead letter, an audit record of the owner, and an alert that names the owner; the task stays where it was."""
    tenant, thief = await fleet.tenant(), await fleet.tenant()
    work = await caller.watch(ASSIGN)
    body = task(tenant, push_assignment=True)
    assert (await caller.ask(body)).ok
    assignment = await work.one(request_id=body["request_id"])
    before = await counted(fleet, door)
    report = success(assignment) if door == "result" else {"assignment_id": assignment["assignment_id"]}
    await caller.tell(subject, {"status": "accepted"} | report | {"tenant_id": thief})
    await told(fleet, caller, door, before, tenant)

    async def recorded() -> bool:
        return "result.violation" in await fleet.actions(tenant)

    await until(recorded, 10, "the owner's log has it")
    assert await fleet.actions(thief) == []


@pytest.mark.parametrize("pushed", [False, True], ids=["not dispatched", "dispatched"])
async def test_a_report_on_another_tenants_decision(fleet: Fleet, caller: Foreign, pushed: bool) -> None:
    """By the decision_id: a dead letter and an alert; it settles nothing, and the owner's own report does."""
    tenant, thief = await fleet.tenant(), await fleet.tenant()
    letters, usage = await caller.watch(f"{RESULT}.dlq"), await caller.watch(USAGE)
    body = task(tenant, push_assignment=pushed, options={"meter": True})
    decision = (await caller.ask(body)).decision["decision_id"]
    before = await counted(fleet, "result")
    report = {"version": "1", "decision_id": decision, "status": "success", "cost": 0.5}
    await caller.tell(RESULT, report | {"tenant_id": thief})
    await told(fleet, caller, "result", before, tenant if pushed else "door/result")
    nobodys = f"{decision[:-4]}{'0000' if decision[-4:] != '0000' else '1111'}"
    await caller.tell(RESULT, report | {"tenant_id": thief, "decision_id": nobodys})
    await caller.tell(RESULT, report | {"tenant_id": tenant})
    settled = await usage.one(tenant_id=tenant)
    assert settled["cost"] == 0.5
    assert await counted(fleet, "result") == before + 1
    refused = [x for x in letters.seen if x["error_code"] == "TENANT_FORBIDDEN"]
    assert refused[-1].get("tenant_id") == (tenant if pushed else None)
    assert await fleet.actions(thief) == []


async def test_a_report_that_names_two_tenants(fleet: Fleet, caller: Foreign) -> None:
    """Header against body: a dead letter, counted."""
    tenant = await fleet.tenant()
    work = await caller.watch(ASSIGN)
    body = task(tenant, push_assignment=True)
    assert (await caller.ask(body)).ok
    assignment = await work.one(request_id=body["request_id"])
    before = await counted(fleet, "result")
    await caller.tell(RESULT, success(assignment, tenant_id=tenant), HEADER)
    await told(fleet, caller, "result", before, "door/result")


USERS = f"""
authorization {{ users: [
  {{ user: router, password: router }}
  {{ user: acme, password: acme,
     permissions: {{ publish: ["{DECIDE}.acme", "{GET_DECISION}.acme"], subscribe: ["_INBOX.>"] }} }}
] }}
"""


class Held:
    """A client of the user acme; `refused` is set when the server refuses a publish, `why` has its words."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()
        self.why: list[str] = []

    async def heard(self, fault: Exception) -> None:
        """The client's error callback."""
        self.why.append(str(fault))
        self.refused.set()


@pytest.fixture
async def guarded(servers: None, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet behind NATS with users: the pod's, and one that may ask for acme only."""
    server = NatsProcess(tmp_path / "nats", extra=USERS)
    env = {"ROUTER_NATS_USER": "router", "ROUTER_NATS_PASSWORD": "router"}
    policies = {"acme": {"default": PLAIN}, "globex": {"default": PLAIN}}
    async with Fleet(tmp_path / "own", pods=1, env=env, policies=policies, nats=server) as fleet:
        yield fleet


async def test_nats_permissions_hold_a_client_to_its_tenant(guarded: Fleet) -> None:
    """It is decided for acme, also when its body says nothing else or another tenant (refused by us); whatever else it
    publishes the server refuses: another tenant's subject, the open one, admin acts, results."""
    held = Held()
    client = await connect(guarded.nats.url, user="acme", password="acme", error_cb=held.heard)  # noqa: S106
    try:
        answer = orjson.loads((await client.request(f"{DECIDE}.acme", orjson.dumps(task("acme")), timeout=5)).data)
        assert answer["ok"] is True
        query = orjson.dumps({"decision_id": answer["decision"]["decision_id"]})
        found = orjson.loads((await client.request(f"{GET_DECISION}.acme", query, timeout=5)).data)
        assert found["decision"]["decision_id"] == answer["decision"]["decision_id"]
        lie = await client.request(f"{DECIDE}.acme", orjson.dumps(task("globex")), timeout=5)
        forbidden(Reply(lie.data, lie.headers or {}))
        others = (f"{DECIDE}.globex", DECIDE, "beamline.router.v1.admin.list_tenants", GET_DECISION, RESULT)
        for subject in others:
            held.refused.clear()
            with pytest.raises(Error):
                await asyncio.gather(
                    client.request(subject, orjson.dumps(task("globex")), timeout=0.5),
                    asyncio.wait_for(held.refused.wait(), 5),
                )
            await asyncio.wait_for(held.refused.wait(), 5)
            assert subject.lower() in held.why[-1].lower()
        assert await guarded.actions("globex") == []
        assert len(await guarded.actions("acme")) == 1
    finally:
        await client.close()
