"""From a pushed task to its usage, and from an undispatched decision to its settlement."""

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from router.wire.pb.beamline.worker.v1.ack_pb2 import ExecAssignmentAck
from router.wire.pb.beamline.worker.v1.result_pb2 import ExecResult, Job
from tests.fleet.foreign import (
    ACK,
    ALERTS,
    ASSIGN,
    ASSIGNED,
    DECIDE,
    GET_DECISION,
    RESULT,
    USAGE,
    Body,
    Foreign,
    success,
    task,
)
from tests.fleet.harness import PLAIN, Document, Fleet, until
from tests.fleet.queries import state_of

ONE: Document = {
    "version": "1.0",
    "providers": [{"name": "only", "weight": 100, "expected_latency_ms": 70, "expected_cost": 0.5}],
}
ONCE = {"retry": {"max_attempts": 1}}
CORRELATION = {"trace_id": "trace-1", "run_id": "run-1", "flow_id": "flow-1", "step_id": "step-1"}


async def pushed(caller: Foreign, body: Body) -> Body:
    """Ask, and the assignment that came of it."""
    assigned = await caller.watch(ASSIGN)
    reply = await caller.ask(body | {"push_assignment": True})
    assert reply.ok, reply.body
    return await assigned.one(assignment_id=reply.context["assignment_id"])


async def actions(fleet: Fleet, tenant: str, last: str, count: int = 1) -> Counter[str]:
    """The tenant's audit actions once the last one is there so often."""

    async def look() -> Counter[str] | None:
        found = Counter(await fleet.actions(tenant))
        return found if found[last] >= count else None

    found: Counter[str] = await until(look, 8, f"{count} × {last} in the audit of {tenant}")
    return found


async def settled(caller: Foreign, tenant: str, request_id: str, state: str) -> Body:
    """The assignment, once it is in this state."""

    async def look() -> Body | None:
        found = await state_of(caller, tenant, request_id)
        return found if found["state"] == state else None

    found: Body = await until(look, 8, f"{request_id} is {state}")
    return found


async def test_an_assignment_is_as_existing_workers_want_it(fleet: Fleet, caller: Foreign) -> None:
    """Every field of the contract, merged with the request's; the payload with the deadline that workers look for."""
    tenant = await fleet.tenant(ONE)
    body = task(tenant, "r-work", metadata={"m": 1}, options={"deadline_ms": 9000, "priority": "high"}, **CORRELATION)
    work = await pushed(caller, body)
    created, deadline = work.pop("created_at_ms"), work.pop("deadline_at_ms")
    assert deadline - created == 9000
    assert work.pop("assignment_id") == work.pop("task_id")
    assert work == {
        "version": "1",
        "attempt": 1,
        "request_id": "r-work",
        "tenant_id": tenant,
        "executor": {"provider_id": "only", "channel": "nats"},
        "job": {"type": "chat", "payload": {"text": "hello", "timeout_ms": 9000}},
        "options": {"priority": "high", "deadline_ms": 9000, "retry": {"max_attempts": 2, "backoff_ms": 200}},
        "correlation": {"trace_id": "trace-1"},
        "decision": {
            "provider_id": "only",
            "priority": 50,
            "expected_latency_ms": 70,
            "expected_cost": 0.5,
            "reason": "weighted",
        },
        "metadata": {"m": 1},
        **CORRELATION,
    }


async def test_correlation_is_carried_to_headers_event_and_usage(fleet: Fleet, caller: Foreign) -> None:
    """trace, run, flow, step and the idempotency key are in all JSON events; headers name tenant, trace and version."""
    tenant = await fleet.tenant(ONE)
    assigned, events, usage = await caller.watch(ASSIGN), await caller.watch(ASSIGNED), await caller.watch(USAGE)
    carried = CORRELATION | {"idempotency_key": "key-1"}
    reply = await caller.ask(task(tenant, push_assignment=True, **carried))
    work = await assigned.one(tenant_id=tenant)
    headers = assigned.headers[assigned.seen.index(work)]
    assert (headers["tenant_id"], headers["trace_id"], headers["version"]) == (tenant, "trace-1", "1")
    assert headers["Nats-Msg-Id"] == work["assignment_id"] == reply.context["assignment_id"]
    event = await events.one(tenant_id=tenant)
    assert {k: event[k] for k in carried} == carried
    assert (event["subject"], event["policy_id"], event["policy_revision"]) == (ASSIGN, "default", 1)
    assert (event["provider_id"], event["reason"], event["attempt"]) == ("only", "weighted", 1)
    assert "payload" not in event
    await caller.tell(RESULT, success(work))
    used = await usage.one(tenant_id=tenant)
    assert {k: used[k] for k in carried} == carried
    assert used["usage_id"] == work["task_id"]
    assert (used["event_type"], used["latency_ms"], used["cost"], used["status"]) == ("chat", 12, 0.003, "success")


def bare(work: Body) -> tuple[bytes, dict[str, str]]:
    """A result in the bare form."""
    return orjson.dumps(success(work)), {}


def enveloped(work: Body) -> tuple[bytes, dict[str, str]]:
    """A result of an existing worker: its own name in provider_id."""
    data = success(work, version="1.0", job_type="chat", provider_id="worker-7")
    del data["job"]
    return orjson.dumps({"version": "v1", "kind": "exec_result", "data": data}), {}


def protobuf(work: Body) -> tuple[bytes, dict[str, str]]:
    """A result as protobuf."""
    result = ExecResult(
        assignment_id=work["assignment_id"],
        request_id=work["request_id"],
        status="success",
        provider_id="only",
        job=Job(type="chat"),
        latency_ms=12,
        cost=0.003,
    )
    return result.SerializeToString(), {"Content-Type": "application/x-protobuf"}


@pytest.mark.parametrize("form", [bare, enveloped, protobuf])
async def test_every_form_of_result_settles(fleet: Fleet, caller: Foreign, form: Any) -> None:
    """Bare, enveloped, protobuf: settled once, metered under the provider that was chosen."""
    tenant = await fleet.tenant(ONE)
    usage = await caller.watch(USAGE)
    work = await pushed(caller, task(tenant))
    data, headers = form(work)
    await caller.client.publish(RESULT, data, headers=headers or None)
    used = await usage.one(tenant_id=tenant)
    assert (used["provider_id"], used["latency_ms"], used["cost"]) == ("only", 12, 0.003)
    assert (await settled(caller, tenant, work["request_id"], "succeeded"))["attempt"] == 1


async def test_a_task_leaves_its_audit_trail(fleet: Fleet, caller: Foreign) -> None:
    """made, published, accepted, settled: once each, and the acknowledged state is told meanwhile."""
    tenant = await fleet.tenant(ONE)
    work = await pushed(caller, task(tenant))
    await caller.tell(ACK, {"assignment_id": work["assignment_id"], "status": "accepted"})
    await settled(caller, tenant, work["request_id"], "accepted")
    await caller.tell(RESULT, success(work))
    await settled(caller, tenant, work["request_id"], "succeeded")
    assert await actions(fleet, tenant, "assignment.published") == {
        "decision.made": 1,
        "assignment.published": 1,
        "assignment.accepted": 1,
        "result.settled": 1,
    }


async def test_an_acceptance_that_comes_after_the_result_is_in_the_log(fleet: Fleet, caller: Foreign) -> None:
    """Acks and results are streams of their own: a quick worker's result overtakes its ack, and the log has both."""
    tenant = await fleet.tenant(ONE)
    work = await pushed(caller, task(tenant))
    await caller.tell(RESULT, success(work))
    await settled(caller, tenant, work["request_id"], "succeeded")
    await caller.tell(ACK, {"assignment_id": work["assignment_id"], "status": "accepted"})
    found = await actions(fleet, tenant, "assignment.accepted")
    assert found["assignment.accepted"] == found["result.settled"] == 1
    assert (await state_of(caller, tenant, work["request_id"]))["state"] == "succeeded"


async def test_a_receipt_of_another_tenant_is_a_violation(fleet: Fleet, caller: Foreign) -> None:
    """A receipt that names another tenant is audited with the owner and dead-lettered; the task stays where it was."""
    tenant, thief = await fleet.tenant(ONE), await fleet.tenant(ONE)
    letters = await caller.watch(f"{ACK}.dlq")
    work = await pushed(caller, task(tenant))
    await caller.tell(ACK, {"assignment_id": work["assignment_id"], "status": "accepted", "tenant_id": thief})
    await letters.one(tenant_id=tenant, error_code="TENANT_FORBIDDEN")
    await actions(fleet, tenant, "result.violation")
    assert (await state_of(caller, tenant, work["request_id"]))["state"] == "published"


async def test_a_protobuf_receipt_counts(fleet: Fleet, caller: Foreign) -> None:
    """ExecAssignmentAck by content type."""
    tenant = await fleet.tenant(ONE)
    work = await pushed(caller, task(tenant))
    ack = ExecAssignmentAck(assignment_id=work["assignment_id"], status="accepted")
    await caller.client.publish(ACK, ack.SerializeToString(), headers={"Content-Type": "application/x-protobuf"})
    await settled(caller, tenant, work["request_id"], "accepted")


async def test_a_repeated_result_is_a_duplicate(fleet: Fleet, caller: Foreign) -> None:
    """The first wins: one usage event; the repeat is counted and audited."""
    tenant = await fleet.tenant(ONE)
    usage = await caller.watch(USAGE)
    work = await pushed(caller, task(tenant))
    await caller.tell(RESULT, success(work, cost=1.5))
    await usage.one(tenant_id=tenant)
    await caller.tell(RESULT, success(work, cost=99.0))
    assert (await actions(fleet, tenant, "result.duplicate"))["result.settled"] == 1
    assert [u["cost"] for u in usage.where(tenant_id=tenant)] == [1.5]


async def test_a_failed_task_is_not_metered(fleet: Fleet, caller: Foreign) -> None:
    """Usage is for successes."""
    tenant = await fleet.tenant(ONE)
    usage = await caller.watch(USAGE)
    failed = await pushed(caller, task(tenant, options=ONCE))
    await caller.tell(RESULT, success(failed, status="error", error_code="BAD_INPUT"))
    await settled(caller, tenant, failed["request_id"], "failed")
    good = await pushed(caller, task(tenant))
    await caller.tell(RESULT, success(good))
    await usage.one(tenant_id=tenant)
    assert [u["request_id"] for u in usage.where(tenant_id=tenant)] == [good["request_id"]]


async def test_a_result_of_another_tenant_is_a_violation(fleet: Fleet, caller: Foreign) -> None:
    """Refused, counted, alerted, audited with the owner, dead-lettered; nothing is settled."""
    tenant, thief = await fleet.tenant(ONE), await fleet.tenant(ONE)
    alerts, usage, letters = await caller.watch(ALERTS), await caller.watch(USAGE), await caller.watch(f"{RESULT}.dlq")
    work = await pushed(caller, task(tenant))
    before = await fleet.total("router_isolation_violations_total")
    await caller.tell(RESULT, success(work, tenant_id=thief))
    found = await actions(fleet, tenant, "result.violation")
    assert found["result.settled"] == 0
    assert await fleet.total("router_isolation_violations_total") == before + 1
    alert = await alerts.until(lambda a: a["metadata"].get("tenant_id") == tenant)
    assert alert[0]["severity"] == "critical"
    assert (await state_of(caller, tenant, work["request_id"]))["state"] == "published"
    await letters.until(lambda x: x["error_code"] == "TENANT_FORBIDDEN" and x.get("tenant_id") == tenant)
    await caller.tell(RESULT, success(work))
    await usage.one(tenant_id=tenant)
    assert await fleet.actions(thief) == []


async def test_garbage_for_a_result_is_dead_lettered(fleet: Fleet, caller: Foreign) -> None:
    """Hopeless results go to the dead letters with their hash, and the next result is settled."""
    tenant = await fleet.tenant(ONE)
    letters = await caller.watch(f"{RESULT}.dlq")
    for data in (b"", b"\xff\xfe", b"[" * 2000, b'{"status":"success"}', b'{"assignment_id":"x","status":"success"}'):
        await caller.client.publish(RESULT, data)
    seen = await letters.until(lambda x: x["original_subject"] == RESULT and "tenant_id" not in x, 5)
    assert all(len(x["payload_sha256"]) == 64 and x["reason"] for x in seen)
    work = await pushed(caller, task(tenant))
    await caller.tell(RESULT, success(work))
    await settled(caller, tenant, work["request_id"], "succeeded")


async def test_an_undispatched_decision_is_settled_by_its_request_id(fleet: Fleet, caller: Foreign) -> None:
    """The caller ran it: a result with tenant and request_id settles it once, and meters it if it was asked to."""
    tenant = await fleet.tenant(ONE)
    usage = await caller.watch(USAGE)
    metered = await caller.ask(task(tenant, "r-metered", options={"meter": True}, **CORRELATION))
    await caller.ask(task(tenant, "r-plain"))
    report = {
        "version": "1",
        "tenant_id": tenant,
        "status": "success",
        "latency_ms": 5,
        "cost": 0.25,
        "job": {"type": "chat"},
    }
    for request_id in ("r-plain", "r-metered", "r-metered"):
        await caller.tell(RESULT, report | {"request_id": request_id})
    found = await actions(fleet, tenant, "result.duplicate")
    assert found["result.settled"] == 2
    used = await usage.one(tenant_id=tenant)
    assert len(usage.where(tenant_id=tenant)) == 1
    assert used["usage_id"] == metered.decision["decision_id"]
    assert (used["request_id"], used["cost"], used["provider_id"]) == ("r-metered", 0.25, "only")
    assert "assignment_id" not in used


async def test_an_undispatched_decision_is_settled_by_its_decision_id(fleet: Fleet, caller: Foreign) -> None:
    """decision_id names it as well; under another tenant it names nothing, even of the same partition."""
    tenant = await fleet.tenant(ONE)
    other = await fleet.neighbour(tenant, ONE)
    decision_id = (await caller.ask(task(tenant))).decision["decision_id"]
    await caller.tell(RESULT, {"version": "1", "tenant_id": other, "decision_id": decision_id, "status": "success"})
    await caller.tell(RESULT, {"version": "1", "tenant_id": tenant, "decision_id": decision_id, "status": "success"})
    await actions(fleet, tenant, "result.settled")
    assert await fleet.actions(other) == []


@pytest.mark.parametrize("by", ["decision_id", "idempotency_key", "request_id", "context"])
async def test_a_metered_decision_has_its_requests_own_ids(fleet: Fleet, caller: Foreign, by: str) -> None:
    """However the result names it, and whatever it says of itself: usage and audit have what the request had."""
    tenant = await fleet.tenant(ONE)
    usage = await caller.watch(USAGE)
    carried = CORRELATION | ({"idempotency_key": "k-1"} if by == "idempotency_key" else {})
    context = {"user_id": "ann", "ip_address": "192.0.2.7"} | ({"retry_attempts": 2} if by == "context" else {})
    body = task(tenant, "r-own", options={"meter": True}, context=context, **carried)
    decision_id = (await caller.ask(body | {"task": {"type": "summarize", "payload": {}}})).decision["decision_id"]
    named: Body = {
        "decision_id": {"decision_id": decision_id},
        "idempotency_key": {"idempotency_key": "k-1"},
        "request_id": {"request_id": "r-own"},
        "context": {"request_id": "r-own", "context": {"retry_attempts": 2}},
    }[by]
    told = {"trace_id": "other", "run_id": "other", "job": {"type": "other"}, "status": "success", "cost": 0.25}
    await caller.tell(RESULT, {"version": "1", "tenant_id": tenant} | told | named)
    event = await usage.one(tenant_id=tenant)
    assert {k: event[k] for k in carried} == carried
    assert (event["request_id"], event["event_type"], event["usage_id"]) == ("r-own", "summarize", decision_id)
    await actions(fleet, tenant, "result.settled")
    (entry,) = [e for e in await fleet.audit(tenant, "r-own") if e.action == "result.settled"]
    assert (entry.trace_id, entry.user_id, entry.ip_address) == ("trace-1", "ann", "192.0.2.7")


@pytest.mark.parametrize("by", ["decision_id", "idempotency_key"])
async def test_the_audit_of_a_result_names_its_request(fleet: Fleet, caller: Foreign, by: str) -> None:
    """Of a decision that is not metered, too, and of a result that names no request."""
    tenant = await fleet.tenant(ONE)
    keyed = {"idempotency_key": "k-1"} if by == "idempotency_key" else {}
    context = {"user_id": "ann", "ip_address": "192.0.2.7"}
    reply = await caller.ask(task(tenant, "r-plain", trace_id="trace-1", context=context, **keyed))
    named = keyed or {"decision_id": reply.decision["decision_id"]}
    await caller.tell(RESULT, {"version": "1", "tenant_id": tenant, "status": "error"} | named)
    await actions(fleet, tenant, "result.settled")
    (entry,) = [e for e in await fleet.audit(tenant, "r-plain") if e.action == "result.settled"]
    assert (entry.trace_id, entry.user_id, entry.ip_address) == ("trace-1", "ann", "192.0.2.7")


async def test_every_record_of_a_task_names_the_clients_address(fleet: Fleet, caller: Foreign) -> None:
    """Decision, assignment and result: an auditor need not join them."""
    tenant = await fleet.tenant(ONE)
    work = await pushed(caller, task(tenant, context={"ip_address": "192.0.2.7"}))
    await caller.tell(RESULT, success(work))
    await actions(fleet, tenant, "result.settled")
    assert {(e.action, e.ip_address) for e in await fleet.audit(tenant)} == {
        ("decision.made", "192.0.2.7"),
        ("assignment.published", "192.0.2.7"),
        ("result.settled", "192.0.2.7"),
    }


async def test_the_caller_gets_the_final_result(fleet: Fleet, caller: Foreign) -> None:
    """`options.result_subject`: the final result, output included."""
    tenant = await fleet.tenant(ONE)
    inbox = caller.client.new_inbox()
    final_results = await caller.core(inbox)
    work = await pushed(caller, task(tenant, options={"result_subject": inbox}))
    await caller.tell(RESULT, success(work, output={"text": "done"}))
    final = await final_results.one()
    assert {k: final[k] for k in ("ok", "task_id", "assignment_id", "attempt", "status", "provider_id", "output")} == {
        "ok": True,
        "task_id": work["task_id"],
        "assignment_id": work["assignment_id"],
        "attempt": 1,
        "status": "success",
        "provider_id": "only",
        "output": {"text": "done"},
    }
    assert (final["latency_ms"], final["cost"]) == (12, 0.003)


async def test_a_repeat_of_a_finished_task_gets_its_end(fleet: Fleet, caller: Foreign) -> None:
    """Same request, another subject: the replay is followed by the final result; so is a repeat of a failed task."""
    tenant = await fleet.tenant(ONE)
    ends: list[Body] = [{"output": {"text": "done"}}, {"status": "error", "error_code": "BAD_INPUT"}]
    for n, said in enumerate(ends):
        subjects = [caller.client.new_inbox() for _ in range(3)]
        inboxes = [await caller.core(subject) for subject in subjects]
        options = [{"result_subject": subject, "retry": {"max_attempts": 1}} for subject in subjects]
        body = task(tenant, request_id=f"again-{n}", options=options[0])
        work = await pushed(caller, body)
        await caller.tell(RESULT, success(work, **said))
        first = await inboxes[0].one()
        for inbox, wanted in zip(inboxes[1:], options[1:], strict=True):
            reply = await caller.ask(body | {"push_assignment": True, "options": wanted})
            assert reply.context["replayed"] is True
            assert await inbox.one() == first


async def test_figures_that_nobody_told_are_the_same_for_caller_and_meter(fleet: Fleet, caller: Foreign) -> None:
    """A success without latency and cost: the time since the decision, and what was expected, in both messages."""
    tenant = await fleet.tenant(ONE)
    inbox = caller.client.new_inbox()
    final_results, usage = await caller.core(inbox), await caller.watch(USAGE)
    work = await pushed(caller, task(tenant, options={"result_subject": inbox}))
    await caller.tell(RESULT, success(work, latency_ms=None, cost=None))
    metered, final = await usage.one(tenant_id=tenant), await final_results.one()
    assert (final["latency_ms"], final["cost"]) == (metered["latency_ms"], metered["cost"])
    assert metered["cost"] == work["decision"]["expected_cost"]


async def test_a_missed_deadline_times_out_and_frees_the_lease(fleet: Fleet, caller: Foreign) -> None:
    """No worker answers: timed out and audited, told, the lease freed; a result then is late."""
    limit = {"id": "slots", "scope": "tenant", "resource": "concurrency", "limit": 1}
    tenant = await fleet.tenant(ONE | {"limits": [limit]})
    inbox = caller.client.new_inbox()
    final_results = await caller.core(inbox)
    slow = task(tenant, options={"deadline_ms": 700, "result_subject": inbox, "retry": {"max_attempts": 1}})
    work = await pushed(caller, slow)
    assert (await caller.ask(task(tenant))).error["details"]["limit_id"] == "slots"
    final = await final_results.one(5)
    assert (final["ok"], final["status"], final["assignment_id"]) == (False, "timeout", work["assignment_id"])
    await actions(fleet, tenant, "assignment.timed_out")
    assert (await state_of(caller, tenant, work["request_id"]))["state"] == "timed_out"
    assert (await caller.ask(task(tenant))).ok
    await caller.tell(RESULT, success(work))
    assert (await actions(fleet, tenant, "result.late"))["result.settled"] == 0


async def test_a_result_frees_its_lease(fleet: Fleet, caller: Foreign) -> None:
    """max_concurrency of a provider: the next one gets through when the first is done."""
    provider = ONE["providers"][0] | {"max_concurrency": 1}
    tenant = await fleet.tenant(ONE | {"providers": [provider]})
    work = await pushed(caller, task(tenant))
    assert (await caller.ask(task(tenant))).error["code"] == "decision_failed"
    await caller.tell(RESULT, success(work))
    await settled(caller, tenant, work["request_id"], "succeeded")
    assert (await caller.ask(task(tenant))).ok


async def test_a_rejected_assignment_is_audited(fleet: Fleet, caller: Foreign) -> None:
    """A worker's refusal is noted under the attempt."""
    tenant = await fleet.tenant(ONE)
    work = await pushed(caller, task(tenant, options=ONCE))
    await caller.tell(ACK, {"assignment_id": work["assignment_id"], "status": "rejected", "reason": "busy"})
    await actions(fleet, tenant, "assignment.rejected")


async def test_failures_open_the_breaker_for_both_pods(fleet: Fleet, caller: Foreign) -> None:
    """Three failures reported by the caller: no pod chooses the provider any more, an alert says so."""
    breaker = {"enabled": True, "failure_threshold": 3, "timeout_ms": 60_000}
    providers = [{"name": "first", "weight": 100}, {"name": "second", "weight": 0}]
    tenant = await fleet.tenant(
        {"version": "1.0", "providers": providers, "fallbacks": [{"to": "second"}], "circuit_breaker": breaker}
    )
    alerts = await caller.watch(ALERTS)
    for n in range(3):
        decision = (await caller.ask(task(tenant, f"f-{n}"))).decision
        assert decision["provider_id"] == "first"
        failed = {"version": "1", "tenant_id": tenant, "request_id": f"f-{n}", "status": "error", "error_code": 503}
        await caller.tell(RESULT, failed)
    found = await actions(fleet, tenant, "breaker.opened")
    assert found["breaker.opened"] == 1
    replies = await caller.all([task(tenant) for _ in range(30)])
    assert len({r.pod for r in replies}) == 2
    assert {r.decision["provider_id"] for r in replies} == {"second"}
    opened = await alerts.until(lambda a: a["metadata"].get("tenant_id") == tenant)
    assert opened[0]["metadata"]["provider_id"] == "first"


async def test_a_large_payload_is_refused_when_pushed(fleet: Fleet, caller: Foreign) -> None:
    """Over 64 KiB: refused with a hint to payload_ref; the reference itself is carried."""
    tenant = await fleet.tenant(ONE)
    large = {"type": "chat", "payload": {"x": "y" * 70_000}}
    assert (await caller.ask(task(tenant, task=large))).ok
    error = (await caller.ask(task(tenant, task=large, push_assignment=True))).error
    assert error["details"]["intake_error_code"] == "PAYLOAD_TOO_LARGE"
    assert "payload_ref" in error["message"]
    work = await pushed(caller, task(tenant, task={"type": "chat", "payload_ref": "s3://bucket/1"}))
    assert (work["job"]["payload_ref"], work["job"]["payload"].get("text")) == ("s3://bucket/1", None)


async def test_a_payload_that_is_no_object_is_wrapped(fleet: Fleet, caller: Foreign) -> None:
    """Dispatched as `{"value": …}`."""
    tenant = await fleet.tenant(ONE)
    work = await pushed(caller, task(tenant, task={"type": "chat", "payload": [1, 2]}))
    assert work["job"]["payload"]["value"] == [1, 2]


async def test_a_subject_of_its_own_gets_the_assignment(fleet: Fleet, caller: Foreign) -> None:
    """`assignment_subject` without a stream: published core, and settled like any other."""
    tenant = await fleet.tenant(ONE)
    heard = await caller.core("caf.exec.special.v1")
    await caller.ask(task(tenant, "r-own", push_assignment=True, assignment_subject="caf.exec.special.v1"))
    work = await heard.one(tenant_id=tenant)
    await caller.tell(RESULT, success(work))
    await settled(caller, tenant, "r-own", "succeeded")


async def test_many_tasks_are_metered_once_each(fleet: Fleet, caller: Foreign) -> None:
    """200 at once, results twice and out of order: 200 usage events with distinct ids, and the outbox drains."""
    tenant = await fleet.tenant(PLAIN)
    assigned, usage = await caller.watch(ASSIGN), await caller.watch(USAGE)
    replies = await caller.all([task(tenant, push_assignment=True) for _ in range(200)])
    assert all(r.ok for r in replies)
    works = await assigned.many(200, tenant_id=tenant)
    for work in [*reversed(works), *works]:
        await caller.tell(RESULT, success(work))
    await usage.many(200, tenant_id=tenant)
    found = await actions(fleet, tenant, "result.duplicate", 200)
    assert found["result.settled"] == 200
    await until(lambda: _empty(fleet), 8, "the outbox is empty")
    assert {u["usage_id"] for u in usage.where(tenant_id=tenant)} == {w["task_id"] for w in works}
    assert len(usage.where(tenant_id=tenant)) == 200


async def _empty(fleet: Fleet) -> bool:
    return await fleet.outbox() == 0


async def test_get_decision_finds_by_every_name(fleet: Fleet, caller: Foreign) -> None:
    """request_id, idempotency_key and decision_id; unknown ones and other tenants' are not found."""
    tenant = await fleet.tenant(ONE)
    other = await fleet.neighbour(tenant, ONE)
    by_request = (await caller.ask(task(tenant, "r-known"))).decision
    by_key = (await caller.ask(task(tenant, "r-keyed", idempotency_key="k-known"))).decision

    async def get(**fields: str) -> Body:
        return (await caller.ask({"tenant_id": tenant} | fields, subject=GET_DECISION)).body

    assert (await get(request_id="r-known"))["decision"] == by_request
    assert (await get(idempotency_key="k-known"))["decision"] == by_key
    assert (await get(decision_id=by_key["decision_id"]))["decision"] == by_key
    for unknown in (
        {"request_id": "r-unknown"},
        {"request_id": "r-keyed"},
        {"decision_id": "00000000-0000-4000-8000-000000000000"},
        {"tenant_id": other, "request_id": "r-known"},
        {"tenant_id": other, "decision_id": by_key["decision_id"]},
    ):
        body = await get(**unknown)
        assert (body["ok"], body["error"]["code"]) == (False, "decision_not_found"), unknown


async def test_get_decision_says_whose_task_it_is(fleet: Fleet, caller: Foreign) -> None:
    """Asked by decision_id: the context that the caller had, assignment_id included."""
    tenant = await fleet.tenant(ONE)
    reply = await caller.ask(task(tenant, push_assignment=True, trace_id="t-1"))
    query = {"tenant_id": tenant, "decision_id": reply.decision["decision_id"]}
    assert (await caller.ask(query, subject=GET_DECISION)).context == reply.context


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"tenant_id":"a"}', b'{"tenant_id":1,"request_id":"r"}']
)
async def test_get_decision_refuses_garbage(fleet: Fleet, caller: Foreign, data: bytes) -> None:
    """One clear error."""
    assert (await caller.raw(data, subject=GET_DECISION)).error["code"] == "invalid_request"


async def test_a_decision_by_subject_and_push_still_answers_once(fleet: Fleet, caller: Foreign) -> None:
    """The stream's ack never reaches the caller: one reply, and it is the decision."""
    tenant = await fleet.tenant(ONE)
    futures = [
        await caller.send(orjson.dumps(task(tenant, push_assignment=True)), subject=f"{DECIDE}.{tenant}")
        for _ in range(20)
    ]
    assert all(r.ok for r in await asyncio.wait_for(asyncio.gather(*futures), 5))
