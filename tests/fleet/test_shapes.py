"""Every shape of request gets the right answer from a running fleet."""

import orjson
import pytest

from router.wire.pb.beamline.flow.v1.flow_pb2 import Message, RouteDecision, RouteRequest
from tests.fleet.foreign import DECIDE, Foreign, task
from tests.fleet.harness import PLAIN, Document, Fleet

PROTOBUF = {"Content-Type": "application/x-protobuf"}
ONE: Document = {
    "version": "1.0",
    "providers": [{"name": "only", "weight": 100, "expected_latency_ms": 70, "expected_cost": 0.5}],
}
SESSION = {"session_id": "s1"}


async def test_a_task_is_decided(fleet: Fleet, caller: Foreign) -> None:
    """The task shape gets a decision with every field of the contract, and its ids back."""
    tenant = await fleet.tenant(ONE)
    reply = await caller.ask(task(tenant, "r-task", trace_id="t-1"))
    decision = reply.decision
    decision_id = decision.pop("decision_id")
    assert len(decision_id) == 36
    assert decision == {
        "provider_id": "only",
        "priority": 50,
        "reason": "weighted",
        "expected_latency_ms": 70,
        "expected_cost": 0.5,
        "policy_id": "default",
        "policy_revision": 1,
    }
    assert reply.context == {"request_id": "r-task", "trace_id": "t-1"}
    assert reply.pod in {p.name for p in fleet.pods}


async def test_a_message_is_decided(fleet: Fleet, caller: Foreign) -> None:
    """What HTTP gateways forward: `message` instead of `task`, `{}` is enough."""
    tenant = await fleet.tenant()
    body = {"version": "1", "tenant_id": tenant, "request_id": "r-message", "message": {}}
    reply = await caller.ask(body)
    assert reply.decision["provider_id"] in {"alpha", "beta"}
    assert reply.context["request_id"] == "r-message"


async def test_an_input_is_decided(fleet: Fleet, caller: Foreign) -> None:
    """What IPC bridges send: no version, no request_id: the message_id is the request's id."""
    tenant = await fleet.tenant()
    body = {"from": "a", "to": "b", "message_id": "m-1", "tenant_id": tenant, "policy_id": "default", "input": "hi"}
    reply = await caller.ask(body)
    assert reply.decision["policy_id"] == "default"
    assert reply.context["request_id"] == "m-1"


async def test_protobuf_is_decided(fleet: Fleet, caller: Foreign) -> None:
    """A RouteRequest is answered with a RouteDecision."""
    tenant = await fleet.tenant(ONE)
    route = RouteRequest(message=Message(message_id="m-pb", tenant_id=tenant, message_type="chat", payload=b'{"a":1}'))
    reply = await caller.raw(route.SerializeToString(), PROTOBUF)
    decision = RouteDecision.FromString(reply.data)
    assert (decision.provider_id, decision.reason, decision.priority) == ("only", "weighted", 50)
    assert (decision.expected_latency_ms, decision.expected_cost) == (70, 0.5)
    assert reply.headers["router-pod"]


async def test_protobuf_of_an_older_encoder_is_decided(fleet: Fleet, caller: Foreign) -> None:
    """Tenant in field 2, as older encoders set it."""
    tenant = await fleet.tenant(ONE)
    route = RouteRequest(message=Message(message_id="m-old", legacy_tenant_id=tenant))
    assert RouteDecision.FromString((await caller.raw(route.SerializeToString(), PROTOBUF)).data).provider_id == "only"


async def test_a_protobuf_refusal_is_in_the_headers(fleet: Fleet, caller: Foreign) -> None:
    """A refused RouteRequest: an empty body and three headers."""
    route = RouteRequest(message=Message(message_id="m-no", tenant_id="nobody-of-that-name"))
    reply = await caller.raw(route.SerializeToString(), PROTOBUF)
    assert reply.data == b""
    assert reply.headers["Nats-Service-Error-Code"] == "404"
    assert reply.headers["x-error-code"] == "policy_not_found"
    assert "nobody-of-that-name" in reply.headers["Nats-Service-Error"]


async def test_a_protobuf_push_is_asked_for_by_a_header(fleet: Fleet, caller: Foreign) -> None:
    """`push_assignment` in the headers dispatches; the payload's JSON is the job's."""
    tenant = await fleet.tenant(ONE)
    assigned = await caller.watch("caf.exec.assign.v1")
    route = RouteRequest(message=Message(message_id="m-push", tenant_id=tenant, payload=b'{"a":1}', flow_id="f-1"))
    reply = await caller.raw(route.SerializeToString(), {**PROTOBUF, "push_assignment": "true"})
    made = RouteDecision.FromString(reply.data)
    seen = await assigned.one(tenant_id=tenant)
    assert seen["assignment_id"] == made.metadata["assignment_id"]
    assert seen["job"]["payload"]["a"] == 1
    assert seen["flow_id"] == "f-1"


async def test_the_subject_names_the_tenant(fleet: Fleet, caller: Foreign) -> None:
    """`decide.<tenant>` needs no tenant in the body; dots in the name are its own."""
    tenant = "eu.west.shop-1"
    await fleet.publisher.apply(tenant, policy_id="default", document=orjson.dumps(ONE))
    body = task(tenant)
    del body["tenant_id"]
    reply = await caller.ask(body, subject=f"{DECIDE}.{tenant}")
    assert reply.decision["provider_id"] == "only"


async def test_a_subject_of_another_tenant_is_refused(fleet: Fleet, caller: Foreign) -> None:
    """The subject's tenant wins over a differing body: refused."""
    one, other = await fleet.tenant(), await fleet.tenant()
    error = (await caller.ask(task(one), subject=f"{DECIDE}.{other}")).error
    assert error["details"]["intake_error_code"] == "TENANT_FORBIDDEN"


async def test_a_header_names_the_tenant(fleet: Fleet, caller: Foreign) -> None:
    """The header `tenant_id` is enough; one that differs from the body is refused."""
    tenant = await fleet.tenant(ONE)
    body = task(tenant)
    del body["tenant_id"]
    assert (await caller.ask(body, {"tenant_id": tenant})).decision["provider_id"] == "only"
    assert (await caller.ask(task(tenant), {"tenant_id": "other"})).error["code"] in {"unauthorized", "invalid_request"}


async def test_a_header_names_the_idempotency_key(fleet: Fleet, caller: Foreign) -> None:
    """Two requests with the same key and other request ids are one decision."""
    tenant = await fleet.tenant()
    first = await caller.ask(task(tenant), {"idempotency-key": "k-1"})
    second = await caller.ask(task(tenant), {"idempotency-key": "k-1"})
    assert second.decision == first.decision
    assert second.context["replayed"] is True


async def test_a_request_without_ids_gets_one(fleet: Fleet, caller: Foreign) -> None:
    """No request_id and no message_id: the router makes one and tells it."""
    tenant = await fleet.tenant()
    body = task(tenant)
    del body["request_id"]
    first, second = await caller.ask(body), await caller.ask(body)
    assert len(first.context["request_id"]) == 36
    assert first.context["request_id"] != second.context["request_id"]


async def test_a_replay_is_marked_and_has_its_callers_context(fleet: Fleet, caller: Foreign) -> None:
    """The same `decision`, the second caller's trace_id, and `replayed`."""
    tenant = await fleet.tenant()
    first = await caller.ask(task(tenant, "r-replay", trace_id="one"))
    second = await caller.ask(task(tenant, "r-replay", trace_id="two"))
    assert second.decision == first.decision
    assert second.context == {"request_id": "r-replay", "trace_id": "two", "replayed": True}
    assert "replayed" not in first.context


async def test_another_request_under_the_same_id_is_refused(fleet: Fleet, caller: Foreign) -> None:
    """A conflict says IDEMPOTENCY_VIOLATION, with `intake_error_code: null` where an existing client wants it."""
    tenant = await fleet.tenant()
    assert (await caller.ask(task(tenant, "r-conflict"))).ok
    error = (await caller.ask(task(tenant, "r-conflict", task={"type": "other"}))).error
    assert (error["code"], error["intake_error_code"]) == ("invalid_request", None)
    assert error["details"]["intake_error_code"] == "IDEMPOTENCY_VIOLATION"


async def test_a_sticky_session_holds_on_every_pod(fleet: Fleet, caller: Foreign) -> None:
    """The pin that one pod makes is found by the other."""
    tenant = await fleet.tenant(PLAIN | {"sticky": {"enabled": True, "session_key": "session_id", "ttl": "10m"}})
    first = (await caller.ask(task(tenant, context=SESSION))).decision
    later = await caller.all([task(tenant, context=SESSION) for _ in range(40)])
    assert {r.pod for r in later} == {p.name for p in fleet.pods}
    assert {(r.decision["provider_id"], r.decision["reason"]) for r in later} == {(first["provider_id"], "sticky")}


@pytest.mark.parametrize("session", ["null", "undefined", "  "])
async def test_a_session_that_stands_for_none_pins_nobody(fleet: Fleet, caller: Foreign, session: str) -> None:
    """A client that forgot to set it: its requests spread by weight, and the metric and the log say so."""
    tenant = await fleet.tenant(PLAIN | {"sticky": {"enabled": True}})
    counted = await fleet.total("router_input_defects_total")
    replies = await caller.all([task(tenant, context={"session_id": session}) for _ in range(40)])
    assert {r.decision["provider_id"] for r in replies} == {"alpha", "beta"}
    assert not any("sticky_key" in r.decision for r in replies)
    assert await fleet.total("router_input_defects_total") - counted == 40


async def test_explain_says_why(fleet: Fleet, caller: Foreign) -> None:
    """`options.explain` brings candidates and limits."""
    tenant = await fleet.tenant(ONE)
    explain = (await caller.ask(task(tenant, options={"explain": True}))).context["explain"]
    assert [(c["provider_id"], c["verdict"]) for c in explain["candidates"]] == [("only", "chosen")]
    assert explain["idempotency"] == "fresh"


async def test_a_constraint_nobody_meets_is_decision_failed(fleet: Fleet, caller: Foreign) -> None:
    """No provider fits: `decision_failed` says why for each."""
    tenant = await fleet.tenant(ONE)
    error = (await caller.ask(task(tenant, constraints={"max_cost": 0.1}))).error
    assert error["code"] == "decision_failed"
    assert [c["provider_id"] for c in error["details"]["candidates"]] == ["only"]


async def test_a_limit_says_when_to_come_back(fleet: Fleet, caller: Foreign) -> None:
    """A refusal by a limit names it and the wait."""
    limit = {"id": "few", "scope": "tenant", "resource": "requests", "limit": 2, "window": "60s"}
    tenant = await fleet.tenant(ONE | {"limits": [limit]})
    for _ in range(2):
        assert (await caller.ask(task(tenant))).ok
    error = (await caller.ask(task(tenant))).error
    assert error["code"] == "rate_limit_exceeded"
    details = error["details"]
    assert (details["limit_id"], details["scope"], details["resource"]) == ("few", "tenant", "requests")
    assert 0 < details["retry_after_ms"] <= 80_000


@pytest.mark.parametrize("header", ["idempotency_key", "Idempotency-Key"])
async def test_a_gateway_may_spell_its_headers_its_own_way(fleet: Fleet, caller: Foreign, header: str) -> None:
    """The key in either header, the trace_id of the header, `message.type`, numbers as user and session."""
    tenant = await fleet.tenant(PLAIN | {"sticky": {"enabled": True}})
    body = {
        "version": "1",
        "tenant_id": tenant,
        "message": {"type": "chat"},
        "trace_id": "body",
        "context": {"user_id": 42, "session_id": 7, "ip_address": "10.0.0.1, 10.0.0.2"},
    }
    first = await caller.ask(body | {"request_id": "a"}, {header: "k-1", "trace_id": "header"})
    assert first.context["trace_id"] == "header"
    assert first.context["warnings"] == ["context.ip_address is not an IP address: dropped"]
    assert first.decision["sticky_key"] == "7"
    text = {"user_id": "42", "session_id": "7"}
    again = await caller.ask(body | {"request_id": "b", "context": text}, {header: "k-1"})
    assert (again.decision, again.context["replayed"]) == (first.decision, True)
    (made,) = [e for e in await fleet.audit(tenant) if e.action == "decision.made"]
    assert (made.user_id, made.ip_address) == ("42", None)
    assert made.details["task_type"] == "chat"


@pytest.mark.parametrize("push", [True, "true", 1, "True"])
async def test_a_message_without_a_reply_subject_is_decided_if_it_pushes(
    fleet: Fleet, caller: Foreign, push: object
) -> None:
    """Fire and forget: dispatched all the same."""
    tenant = await fleet.tenant(ONE)
    assigned = await caller.watch("caf.exec.assign.v1")
    await caller.tell(DECIDE, task(tenant, push_assignment=push))
    assert (await assigned.one(tenant_id=tenant))["executor"]["provider_id"] == "only"
