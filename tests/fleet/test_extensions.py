"""Policies with extensions, answered by real responders that know only subjects and JSON."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.fleet.conftest import Own
from tests.fleet.extension import OK, Answer, Extension
from tests.fleet.foreign import ASSIGN, GET_DECISION, Body, Foreign, Reply, task
from tests.fleet.harness import PLAIN, Document, Fleet, until
from tests.fleet.queries import act


def pipeline(base: Document = PLAIN, /, **kinds: list[Body]) -> Document:
    """A policy with these extensions."""
    return base | kinds


def silent(_: Body) -> None:
    """Gives no answer."""


def garbage(_: Body) -> bytes:
    """Gives a useless one."""
    return b"<html>"


def refusing(_: Body) -> Body:
    """A validator's no."""
    return {"valid": False, "reason": "a name", "details": {"field": "text"}}


FAILURES: dict[str, tuple[Answer | None, str, str]] = {
    "nobody": (None, "extension_unavailable", "unavailable"),
    "silent": (silent, "extension_timeout", "timeout"),
    "garbage": (garbage, "extension_error", "error"),
}
STEPS: dict[str, tuple[str, Body, bool]] = {
    "pre required": ("pre", {"mode": "required"}, True),
    "pre optional": ("pre", {"mode": "optional"}, False),
    "validators block": ("validators", {"on_fail": "block"}, True),
    "validators warn": ("validators", {"on_fail": "warn"}, False),
    "validators ignore": ("validators", {"on_fail": "ignore"}, False),
    "post required": ("post", {"mode": "required"}, True),
    "post optional": ("post", {"mode": "optional"}, False),
}


def stage_of(kind: str) -> str:
    """The word in the subject."""
    return "validate" if kind == "validators" else kind


async def asked_with(
    fleet: Fleet, caller: Foreign, kind: str, fields: Body, answer: Answer | Body | None
) -> tuple[str, Extension, Reply]:
    """One request under a policy with one extension."""
    extension = Extension(caller, stage_of(kind), answer or {})
    if answer is not None:
        await extension.start()
    tenant = await fleet.tenant(pipeline(**{kind: [{"id": extension.id, "timeout_ms": 150, **fields}]}))
    return tenant, extension, await caller.ask(task(tenant, "r", options={"explain": True}))


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", STEPS)
async def test_a_failure_counts_as_its_mode_says(fleet: Fleet, caller: Foreign, step: str, failure: str) -> None:
    """Required and blocking ones end the request with the right code, audited; others are left out and explained."""
    kind, fields, needed = STEPS[step]
    answer, code, outcome = FAILURES[failure]
    tenant, extension, reply = await asked_with(fleet, caller, kind, fields, answer)
    if needed:
        expected = "post_processor_failed" if kind == "post" else code
        assert reply.error["code"] == expected
        assert reply.error["details"]["extension_id"] == extension.id
        refused = await fleet.audit(tenant, "r")
        if kind == "post":
            assert [e.action for e in refused] == ["decision.made", "result.settled"]
            assert refused[-1].details["status"] == "cancelled"
        else:
            assert [(e.action, e.details["refusal"]) for e in refused] == [("decision.refused", code)]
        return
    (told,) = reply.context["explain"]["extensions"]
    assert (told["extension_id"], told["stage"], told["outcome"]) == (extension.id, stage_of(kind), outcome)
    warned = [w["extension_id"] for w in reply.decision.get("metadata", {}).get("warnings", [])]
    assert warned == ([extension.id] if step == "validators warn" else [])
    assert await fleet.actions(tenant, "r") == ["decision.made"]


@pytest.mark.parametrize("on_fail", ["block", "warn", "ignore"])
async def test_a_refusal_counts_as_its_mode_says(fleet: Fleet, caller: Foreign, on_fail: str) -> None:
    """block: `validator_blocked` with reason and details; warn: told in the decision; ignore: nothing."""
    tenant, extension, reply = await asked_with(fleet, caller, "validators", {"on_fail": on_fail}, refusing)
    if on_fail == "block":
        assert reply.error["code"] == "validator_blocked"
        details = reply.error["details"]
        assert (details["reason"], details["details"]) == ("a name", {"field": "text"})
        assert await fleet.actions(tenant, "r") == ["decision.refused"]
        return
    warning = {"extension_id": extension.id, "outcome": "rejected", "reason": "a name"}
    assert reply.decision.get("metadata", {}) == ({"warnings": [warning]} if on_fail == "warn" else {})


async def test_what_an_extension_is_sent(fleet: Fleet, caller: Foreign) -> None:
    """Trace, tenant, payload, metadata and the policy's config."""
    extension = await Extension(caller, "pre").start()
    tenant = await fleet.tenant(pipeline(pre=[{"id": extension.id, "config": {"level": 2}}]))
    assert (await caller.ask(task(tenant, trace_id="t-1", metadata={"lang": "en"}))).ok
    assert extension.calls == [
        {
            "trace_id": "t-1",
            "tenant_id": tenant,
            "payload": {"text": "hello"},
            "metadata": {"lang": "en"},
            "config": {"level": 2},
        }
    ]


async def test_what_pre_made_of_the_payload_is_dispatched(fleet: Fleet, caller: Foreign) -> None:
    """The worker gets the changed payload and metadata; the same request again is a replay, not another one."""
    extension = await Extension(caller, "pre", {"payload": {"text": "***"}, "metadata": {"masked": True}}).start()
    tenant = await fleet.tenant(pipeline(pre=[{"id": extension.id}]))
    assigned = await caller.watch(ASSIGN)
    first = await caller.ask(task(tenant, "r", push_assignment=True, metadata={"lang": "en"}))
    work = await assigned.one(tenant_id=tenant)
    assert (work["job"]["payload"]["text"], work["metadata"]) == ("***", {"lang": "en", "masked": True})
    again = await caller.ask(task(tenant, "r", push_assignment=True, metadata={"lang": "en"}))
    assert (again.context["replayed"], again.decision) == (True, first.decision)
    assert len(extension.calls) == 1


async def test_when_leaves_extensions_out(fleet: Fleet, caller: Foreign) -> None:
    """One that is not for this request is not called, though required."""
    extension = Extension(caller, "pre")
    when = {"message_type": ["mail"]}
    tenant = await fleet.tenant(pipeline(pre=[{"id": extension.id, "mode": "required", "when": when}]))
    assert (await caller.ask(task(tenant))).ok


async def test_post_metadata_is_part_of_the_decision(fleet: Fleet, caller: Foreign) -> None:
    """In the answer, in every replay from any pod, and in get_decision; the extension was told the decision."""
    extension = await Extension(caller, "post", {"metadata": {"region": "eu"}}).start()
    tenant = await fleet.tenant(pipeline(post=[{"id": extension.id, "mode": "required"}]))
    first = await caller.ask(task(tenant, "r"))
    assert first.decision["metadata"] == {"region": "eu"}
    assert extension.calls[0]["metadata"]["decision"]["provider_id"] == first.decision["provider_id"]
    replies = await caller.all([task(tenant, "r")] * 20)
    assert len({r.pod for r in replies}) == 2
    assert all(r.decision == first.decision for r in replies)
    stored = await caller.ask({"tenant_id": tenant, "request_id": "r"}, subject=GET_DECISION)
    assert stored.decision == first.decision
    assert len(extension.calls) == 1


@pytest.mark.parametrize("stage", ["pre", "post"])
async def test_duplicates_run_the_extensions_once(fleet: Fleet, caller: Foreign, stage: str) -> None:
    """40 at once over two pods, while the extension takes its time: one call, one decision, 39 replays."""
    extension = await Extension(caller, stage).start()
    extension.may_answer.clear()
    tenant = await fleet.tenant(pipeline(**{stage: [{"id": extension.id, "mode": "required", "timeout_ms": 3000}]}))
    futures = [await caller.send(orjson.dumps(task(tenant, "twin"))) for _ in range(40)]
    await asyncio.wait_for(extension.called.wait(), 5)
    await caller.client.flush()
    extension.may_answer.set()
    replies = list(await asyncio.wait_for(asyncio.gather(*futures), 10))
    assert len(extension.calls) == 1
    assert len({r.pod for r in replies}) == 2
    assert all(r.decision == replies[0].decision for r in replies)
    assert sum("replayed" not in r.context for r in replies) == 1
    assert await fleet.actions(tenant) == ["decision.made"]


LIMITED: Document = PLAIN | {
    "limits": [{"id": "all", "scope": "tenant", "resource": "requests", "limit": 1, "window": "60s"}]
}


async def test_a_request_over_its_limit_calls_nobody(fleet: Fleet, caller: Foreign) -> None:
    """The look says so before the extensions run; refused and audited as ever."""
    extension = await Extension(caller, "pre").start()
    tenant = await fleet.tenant(pipeline(LIMITED, pre=[{"id": extension.id, "mode": "required"}]))
    assert (await caller.ask(task(tenant))).ok
    refused = await caller.ask(task(tenant))
    assert refused.error["code"] == "rate_limit_exceeded"
    assert len(extension.calls) == 1
    assert await fleet.actions(tenant) == ["decision.made", "decision.refused"]


async def test_a_blocked_request_charges_nothing_and_may_be_tried_again(fleet: Fleet, caller: Foreign) -> None:
    """Its limit has room for one: the same id passes when the validator has changed its mind, at once."""
    extension = await Extension(caller, "validate", refusing).start()
    tenant = await fleet.tenant(pipeline(LIMITED, validators=[{"id": extension.id}]))
    assert (await caller.ask(task(tenant, "r"))).error["code"] == "validator_blocked"
    extension.answer = lambda _: {"valid": True}
    assert (await caller.ask(task(tenant, "r"))).ok


ALONE: Document = {"version": "1.0", "providers": [{"name": "only", "weight": 100, "max_concurrency": 1}]}


async def test_a_task_whose_post_failed_is_not_dispatched(fleet: Fleet, caller: Foreign) -> None:
    """Refused, audited, its lease free again; the same id passes later and is the only one that workers see."""
    extension = await Extension(caller, "post", garbage).start()
    tenant = await fleet.tenant(pipeline(ALONE, post=[{"id": extension.id, "mode": "required"}]))
    assigned = await caller.watch(ASSIGN)
    for _ in range(2):
        failed = await caller.ask(task(tenant, "r", push_assignment=True))
        assert failed.error["code"] == "post_processor_failed"
    extension.answer = lambda _: OK
    good = await caller.ask(task(tenant, "r", push_assignment=True))
    work = await assigned.one(tenant_id=tenant)
    assert work["assignment_id"] == good.context["assignment_id"]
    assert len(assigned.where(tenant_id=tenant)) == 1
    actions = await fleet.actions(tenant, "r")
    assert actions[:5] == ["decision.made", "result.settled", "decision.made", "result.settled", "decision.made"]


async def repeated(caller: Foreign, body: Body) -> Reply:
    """The decision, from a caller who repeats his request as callers do: a killed pod may have taken the first one."""

    async def decided() -> Reply | None:
        try:
            reply = await caller.ask(body, within_s=5)
        except TimeoutError:
            return None
        return reply if reply.ok else None

    reply: Reply = await until(decided, 20, "a repeat is decided")
    return reply


async def test_a_pod_killed_in_pre_holds_nobody_up_for_long(own: Own) -> None:
    """Its claim runs out; a repeat of the request runs the extension on the other pod and is decided once."""
    fleet, caller = await own(policies={"acme": {"default": PLAIN}})
    extension = await Extension(caller, "pre", silent).start()
    tenant = await fleet.tenant(pipeline(pre=[{"id": extension.id, "mode": "required", "timeout_ms": 1500}]))
    await caller.send(orjson.dumps(task(tenant, "r")))
    await asyncio.wait_for(extension.called.wait(), 5)
    (busy,) = [p for p in fleet.pods if (await p.metrics())["router_pipelines"] == 1]
    await busy.kill()
    extension.answer = lambda _: OK

    assert (await repeated(caller, task(tenant, "r"))).ok
    assert (await fleet.actions(tenant, "r")).count("decision.made") == 1


async def test_a_pod_killed_in_post_leaves_nothing_half_done(own: Own) -> None:
    """Its task is never published; a repeat takes the decision back and makes a new one, which is."""
    fleet, caller = await own(policies={"acme": {"default": PLAIN}})
    extension = await Extension(caller, "post", silent).start()
    post = [{"id": extension.id, "mode": "required", "timeout_ms": 1500}]
    tenant = await fleet.tenant(pipeline(ALONE, post=post))
    assigned = await caller.watch(ASSIGN)
    body = task(tenant, "r", push_assignment=True)
    await caller.send(orjson.dumps(body))
    await asyncio.wait_for(extension.called.wait(), 5)
    await asyncio.gather(*(p.kill() for p in fleet.pods))
    extension.answer = lambda _: OK
    await fleet.pods[0].start()
    good = await repeated(caller, body)
    work = await assigned.one(tenant_id=tenant)
    assert work["assignment_id"] == good.context["assignment_id"]
    assert len(assigned.where(tenant_id=tenant)) == 1
    assert (await fleet.actions(tenant, "r"))[:3] == ["decision.made", "result.settled", "decision.made"]


async def test_a_task_of_a_dead_pod_is_cancelled_by_the_sweeper(own: Own) -> None:
    """Nobody repeats the request: once the claim has run out its task is cancelled, audited, never published."""
    fleet, caller = await own(policies={"acme": {"default": PLAIN}})
    extension = await Extension(caller, "post", silent).start()
    post = [{"id": extension.id, "mode": "required", "timeout_ms": 500}]
    tenant = await fleet.tenant(pipeline(post=post))
    assigned = await caller.watch(ASSIGN)
    await caller.send(orjson.dumps(task(tenant, "r", push_assignment=True)))
    await asyncio.wait_for(extension.called.wait(), 5)
    await asyncio.gather(*(p.kill() for p in fleet.pods))
    await fleet.pods[0].start()

    async def cancelled() -> bool:
        actions: list[str] = await fleet.actions(tenant, "r")
        return actions == ["decision.made", "result.settled"]

    await until(cancelled, 15, "the sweeper takes it back")
    assert assigned.where(tenant_id=tenant) == []
    stored = await caller.ask({"tenant_id": tenant, "request_id": "r"}, subject=GET_DECISION)
    assert stored.error["code"] == "decision_not_found"


async def test_health_and_breakers_are_the_fleets(fleet: Fleet, caller: Foreign) -> None:
    """After failures in a row nobody calls it, whichever pod is asked; both tell the same, and dry runs refuse."""
    extension = await Extension(caller, "pre", garbage).start()
    tenant = await fleet.tenant(pipeline(pre=[{"id": extension.id, "mode": "required"}]))
    for _ in range(5):
        assert (await caller.ask(task(tenant))).error["code"] == "extension_error"

    async def open_now() -> bool:
        return str((await caller.ask(task(tenant))).error["code"]) == "extension_unavailable"

    await until(open_now, 5, "the breaker opens")

    async def everywhere() -> bool:
        replies = await caller.all([task(tenant) for _ in range(20)])
        return {r.error["code"] for r in replies} == {"extension_unavailable"} and len({r.pod for r in replies}) == 2

    await until(everywhere, 5, "both pods know")
    dry = await act(caller, "dry_run_pipeline", {"tenant_id": tenant, "policy_id": "default", "payload": {}})
    assert dry["error"]["code"] == "extension_unavailable"
    calls = len(extension.calls)
    seen = [await act(caller, "get_extension_health", {"extension_id": extension.id}) for _ in range(10)]
    assert all(s == seen[0] for s in seen)
    health = seen[0]["health"][extension.id]
    assert (health["status"], health["circuit_breaker_state"]) == ("unhealthy", "open")
    assert (health["success_count"], health["failure_count"]) == (0, calls)
    states = (await act(caller, "get_circuit_breaker_states", {}))["states"]
    (mine,) = [s for s in states if s.get("extension_id") == extension.id]
    assert mine["state"] == "open"
    assert mine["next_probe_at_ms"] > mine["opened_at_ms"]


async def test_health_of_an_unknown_extension(caller: Foreign) -> None:
    """`extension_not_found`."""
    reply = await act(caller, "get_extension_health", {"extension_id": "nobody"})
    assert reply["error"]["code"] == "extension_not_found"


async def test_a_dry_run_calls_nobody(fleet: Fleet, caller: Foreign) -> None:
    """It names the extensions that a request would be sent to."""
    extension = await Extension(caller, "pre").start()
    tenant = await fleet.tenant(pipeline(pre=[{"id": extension.id}]))
    reply = await act(caller, "dry_run_pipeline", {"tenant_id": tenant, "policy_id": "default", "payload": {}})
    assert reply["result"]["executed_extensions"] == []
    assert reply["result"]["explain"]["extensions"] == [{"extension_id": extension.id, "stage": "pre", "status": None}]
    assert extension.calls == []


@pytest.mark.parametrize(("mode", "passes"), [("required", False), ("optional", True)])
async def test_the_baseline_has_no_extensions(own: Own, mode: str, passes: bool) -> None:
    """Below CP2: a required one refuses the request, an optional one is ignored, and the answer says why."""
    document = pipeline(pre=[{"id": "mask", "mode": mode}])
    fleet, caller = await own(pods=1, policies={"default": {"default": document}}, state=None)
    reply = await caller.ask(task("default"))
    if passes:
        assert reply.decision["metadata"] == {"requires_cp": {"extensions": "CP2-LC"}}
    else:
        assert reply.error["code"] == "extension_unavailable"
        assert reply.error["details"]["requires_cp"] == "CP2-LC"
    assert await fleet.redis("EXISTS", fleet.keys.extensions) == 0


async def test_overload_of_pipelines_leaves_room_for_others(own: Own) -> None:
    """Requests that wait for a slow extension are bounded; a policy without extensions is answered as ever."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": PLAIN}}, env={"ROUTER_PIPELINES_MAX": "2"})
    extension = await Extension(caller, "pre", silent).start()
    slow: list[Any] = [{"id": extension.id, "mode": "required", "timeout_ms": 1000}]
    tenant = await fleet.tenant(pipeline(pre=slow))
    replies = await caller.all([task(tenant) for _ in range(6)] + [task("acme")])
    codes = [r.error["code"] for r in replies[:-1]]
    assert sorted(codes) == ["extension_timeout"] * 2 + ["service_overloaded"] * 4
    assert replies[-1].ok
