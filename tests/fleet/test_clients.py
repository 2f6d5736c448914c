"""Clients of every age ask one fleet, and it means the same to all of them."""

import asyncio

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from router.wire.pb.beamline.flow.v1.flow_pb2 import Message, RouteDecision, RouteRequest
from tests.fleet.foreign import ALERTS, ASSIGN, RESULT, USAGE, Body, Foreign, success, task
from tests.fleet.harness import Document, Fleet, until
from tests.nats_client import connect

PROTOBUF = {"Content-Type": "application/x-protobuf"}
BRIEF: Document = {
    "version": "1.0",
    "providers": [{"name": "only", "weight": 100}],
    "circuit_breaker": {"failure_threshold": 1, "timeout_ms": 100, "success_threshold": 1},
}
RULED: Document = {
    "version": "1.0",
    "providers": [{"name": "alpha", "weight": 60}, {"name": "beta", "weight": 40}],
    "fallbacks": [{"when": {"status": ["timeout"]}, "retry": 2, "to": "reserve"}],
}
GARBAGE = "caf.exec.garbage.v1"
"""Of no stream: other tests read what the streams hold."""
OPTIONAL = (
    "policy_id",
    "constraints",
    "metadata",
    "context",
    "trace_id",
    "run_id",
    "flow_id",
    "step_id",
    "idempotency_key",
    "push_assignment",
    "assignment_subject",
    "options",
    "message",
    "input",
)


def told(tenant: str, reply: Body, status: str, **more: object) -> Body:
    """What a caller reports who ran the task itself."""
    return {
        "version": "1",
        "tenant_id": tenant,
        "request_id": reply["request_id"],
        "status": status,
        "provider_id": "whoever",
        "job": {"type": "chat"},
        "latency_ms": 5,
        "cost": 0.25,
    } | more


async def test_null_is_as_absent(fleet: Fleet, caller: Foreign) -> None:
    """Encoders that write every field write null where there is nothing: the same request as without the field."""
    tenant = await fleet.tenant()
    bare = task(tenant, "r-null")
    first = await caller.ask(bare | dict.fromkeys(OPTIONAL))
    again = await caller.ask(bare)
    assert again.decision == first.decision
    assert again.context["replayed"] is True


async def test_one_request_in_every_shape_is_one_request(fleet: Fleet, caller: Foreign) -> None:
    """Task, message and protobuf with the same ids and payload: two replays of the first."""
    tenant = await fleet.tenant()
    payload = {"text": "hello"}
    message = {"message_id": "m-shapes", "message_type": "input", "payload": payload}
    first = await caller.ask(task(tenant, "m-shapes", task={"type": "input", "payload": payload}))
    second = await caller.ask({"version": "1", "tenant_id": tenant, "message": message})
    route = RouteRequest(
        message=Message(message_id="m-shapes", tenant_id=tenant, message_type="input", payload=orjson.dumps(payload))
    )
    third = RouteDecision.FromString((await caller.raw(route.SerializeToString(), PROTOBUF)).data)
    assert second.decision == first.decision
    assert third.metadata["decision_id"] == first.decision["decision_id"]
    assert (second.context["replayed"], third.metadata["replayed"]) == (True, "true")


async def test_a_protobuf_caller_walks_the_fallbacks(fleet: Fleet, caller: Foreign) -> None:
    """The context map has only strings: `retry_attempts` counts there as it does in JSON, and a replay in JSON fits."""
    tenant = await fleet.tenant(RULED)
    reasons = []
    body = task(tenant, "m-step", task={"type": "unknown"})
    for attempts in ("0", "1"):
        context = {"status": "timeout", "current_provider": "alpha", "retry_attempts": attempts}
        route = RouteRequest(message=Message(message_id="m-step", tenant_id=tenant), context=context)
        reply = RouteDecision.FromString((await caller.raw(route.SerializeToString(), PROTOBUF)).data)
        reasons.append((reply.provider_id, reply.reason))
        again = await caller.ask(body | {"context": context | {"retry_attempts": int(attempts)}})
        assert again.context["replayed"] is True
    assert reasons == [("alpha", "retry"), ("reserve", "fallback")]


@pytest.mark.parametrize("name", ["Idempotency-Key", "IDEMPOTENCY-KEY"])
async def test_header_names_come_in_any_case(fleet: Fleet, caller: Foreign, name: str) -> None:
    """HTTP gateways forward them as their library spells them."""
    tenant = await fleet.tenant()
    first = await caller.ask(task(tenant), {"idempotency-key": f"k-{name}"})
    again = await caller.ask(task(tenant), {name: f"k-{name}"})
    assert again.decision["decision_id"] == first.decision["decision_id"]


async def test_the_provider_of_an_undispatched_result_is_the_decisions(fleet: Fleet, caller: Foreign) -> None:
    """What the result calls its provider may be a worker's name: usage has the one that was decided."""
    tenant = await fleet.tenant(BRIEF)
    usage = await caller.watch(USAGE)
    reply = await caller.ask(task(tenant, options={"meter": True}))
    await caller.tell(RESULT, told(tenant, reply.context, "success"))
    event = await usage.one(usage_id=reply.decision["decision_id"])
    assert (event["provider_id"], event["cost"]) == ("only", 0.25)
    assert "assignment_id" not in event


async def test_every_opening_of_a_breaker_is_told_and_ended(fleet: Fleet, caller: Foreign) -> None:
    """Whichever pod sees it open and whichever sees it close: an alert each time, and its end under the same id."""
    tenant = await fleet.tenant(BRIEF)
    alerts = await caller.core(ALERTS)
    scope = f"{tenant}/only"
    for turn, status in enumerate(("timeout", "success") * 4, 1):
        reply = await caller.ask(task(tenant))
        while not reply.ok:
            await asyncio.sleep(reply.error["details"]["retry_after_ms"] / 1000)
            reply = await caller.ask(task(tenant))
        await caller.tell(RESULT, told(tenant, reply.context, status))
        await alerts.until(lambda a: a["metadata"].get("scope") == scope, count=turn)
    told_of = [(a["alert_id"], a["metadata"].get("resolved", False)) for a in alerts.seen if scope in a["alert_id"]]
    ids = [f"breaker_opened:{scope}:{n}" for n in range(1, 5)]
    assert told_of == [(each, ended) for each in ids for ended in (False, True)]


async def test_the_same_request_at_once_calls_its_extensions_once(fleet: Fleet, caller: Foreign) -> None:
    """Six copies, while the first is with its extension: one call, one decision, five replays."""
    tenant = await fleet.tenant({**BRIEF, "pre": [{"id": "once", "timeout_ms": 2000}]})
    calls: asyncio.Queue[Msg] = asyncio.Queue()

    async def called(message: Msg) -> None:
        calls.put_nowait(message)

    await caller.client.subscribe("beamline.ext.pre.once.v1", cb=called)
    await caller.client.flush()
    asked = [await caller.send(orjson.dumps(task(tenant, "r-once"))) for _ in range(6)]
    await (await asyncio.wait_for(calls.get(), 5)).respond(b"{}")
    replies = await asyncio.wait_for(asyncio.gather(*asked), 5)
    assert len({reply.decision["decision_id"] for reply in replies}) == 1
    assert sorted(bool(reply.context.get("replayed")) for reply in replies) == [False] + [True] * 5
    assert calls.empty()


async def test_what_is_limited_calls_no_extension(fleet: Fleet, caller: Foreign) -> None:
    """Limits are looked at before anybody is asked."""
    limit = {"id": "one", "scope": "tenant", "resource": "requests", "limit": 1, "window": "60s"}
    tenant = await fleet.tenant({**BRIEF, "pre": [{"id": "spared", "mode": "optional"}], "limits": [limit]})
    assert (await caller.ask(task(tenant))).ok
    calls = await caller.core("beamline.ext.pre.spared.v1")
    error = (await caller.ask(task(tenant))).error
    assert (error["code"], error["details"]["limit_id"]) == ("rate_limit_exceeded", "one")
    assert not calls.seen


async def test_a_pull_worker_gets_its_work(fleet: Fleet, caller: Foreign) -> None:
    """The consumer `workers` on stream ASSIGN has the assignment under its id, and its result ends the task."""
    tenant = await fleet.tenant(BRIEF)
    usage = await caller.watch(USAGE)
    pull = await caller.client.jetstream().pull_subscribe_bind("workers", "ASSIGN")
    reply = await caller.ask(task(tenant, push_assignment="true"))
    async with asyncio.timeout(10):
        while True:
            (message,) = await pull.fetch(1, timeout=5)
            await message.ack()
            work = orjson.loads(message.data)
            if work["tenant_id"] == tenant:
                break
    assert work["assignment_id"] == reply.context["assignment_id"] == (message.header or {})["Nats-Msg-Id"]
    await caller.tell(RESULT, success(work))
    assert (await usage.one(usage_id=work["task_id"]))["assignment_id"] == work["assignment_id"]


async def existing_worker(url: str, name: str) -> Client:
    """Plain nats-py as in the field: no JetStream, no queue group, no ack; it says that it lives, and what it cannot
    read."""
    client = await connect(url, name=name)
    done: set[str] = set()

    def told(kind: str, **data: object) -> bytes:
        return orjson.dumps({"version": "v1", "kind": kind, "data": data})

    async def work(message: Msg) -> None:
        try:
            work = orjson.loads(message.data)
            assignment_id, job = work["assignment_id"], work["job"]
        except (ValueError, KeyError):
            letter = told("dead_letter", reason="PARSE_ERROR", payload_ref="core", ts=1)
            await client.publish("caf.deadletter.v1", letter)
            return
        if assignment_id in done:
            return
        done.add(assignment_id)
        result = {"version": "1.0", "assignment_id": assignment_id, "request_id": work["request_id"]}
        result |= {"tenant_id": work["tenant_id"], "status": "success", "provider_id": name, "job_type": job["type"]}
        result |= {"latency_ms": 3, "cost": 0.5, "output": {"text": job["payload"]["text"].upper()}}
        await client.publish(RESULT, told("exec_result", **result))

    for subject in (ASSIGN, GARBAGE):
        await client.subscribe(subject, cb=work)
    beat = told("heartbeat", worker_id=name, timestamp="2026-01-01T00:00:00Z", status="idle", load=0.0)
    await client.publish("caf.status.heartbeat.v1", beat)
    await client.flush()
    return client


async def test_workers_that_only_subscribe_do_their_work(fleet: Fleet, caller: Foreign) -> None:
    """Two of them get every assignment and both report: one usage event, one final result, the repeat a duplicate;
    heartbeats and dead letters of theirs are in the metrics."""
    tenant = await fleet.tenant(BRIEF)
    inbox = caller.client.new_inbox()
    final_results, usage = await caller.core(inbox), await caller.watch(USAGE)
    before = {name: await fleet.total(f"router_{name}_total") for name in ("worker_heartbeats", "dead_letters")}
    workers = [await existing_worker(fleet.nats.url, f"old-{n}") for n in range(2)]
    try:
        reply = await caller.ask(task(tenant, push_assignment=True, options={"result_subject": inbox}))
        final = await final_results.one(tenant_id=tenant)
        used = await usage.one(tenant_id=tenant)
        await until(lambda: _said(fleet, tenant, "result.duplicate"), 8, "the other's report is a duplicate")
        await caller.client.publish(GARBAGE, b"no assignment")
        await until(lambda: _grown(fleet, before), 8, "heartbeats and dead letters are counted")
    finally:
        for worker in workers:
            await worker.close()
    assert (final["ok"], final["output"]) == (True, {"text": "HELLO"})
    assert final["assignment_id"] == used["assignment_id"] == reply.context["assignment_id"]
    # The provider is the decision's; these call themselves so.
    assert (used["provider_id"], used["cost"], len(usage.where(tenant_id=tenant))) == ("only", 0.5, 1)
    assert len(final_results.seen) == 1


async def _said(fleet: Fleet, tenant: str, action: str) -> bool:
    return action in await fleet.actions(tenant)


async def _grown(fleet: Fleet, before: dict[str, float]) -> bool:
    """A heartbeat is heard by every pod, a dead letter by one."""
    now = {name: await fleet.total(f"router_{name}_total") - n for name, n in before.items()}
    return now == {"worker_heartbeats": 2 * len(fleet.pods), "dead_letters": 2}


async def test_tokens_are_settled_by_the_result(fleet: Fleet, caller: Foreign) -> None:
    """Reserved by estimate, given back down to what was used: the rest is there for the next."""
    limit = {"id": "tokens", "scope": "tenant", "resource": "tokens", "limit": 100, "window": "60s"}
    tenant = await fleet.tenant({**BRIEF, "limits": [limit]})
    usage = await caller.watch(USAGE)
    reply = await caller.ask(task(tenant, options={"estimate": {"tokens": 80}, "meter": True}))
    assert not (await caller.ask(task(tenant, options={"estimate": {"tokens": 30}}))).ok
    await caller.tell(RESULT, told(tenant, reply.context, "success", tokens=10))
    await usage.one(usage_id=reply.decision["decision_id"])
    assert (await caller.ask(task(tenant, options={"estimate": {"tokens": 90}}))).ok
    assert not (await caller.ask(task(tenant, options={"estimate": {"tokens": 1}}))).ok
