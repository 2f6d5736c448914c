"""Why a decision is as it is: in the reply, from the log, and as a dry run; and a decision by its message's id."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import Ran, run_process
from tests.fleet.conftest import Own
from tests.fleet.foreign import ASSIGN, GET_DECISION, RESULT, Body, Foreign, success, task
from tests.fleet.harness import PLAIN, Document, Fleet, until

DRY_RUN = "beamline.router.v1.admin.dry_run_pipeline"
GUARDED: Document = {
    "version": "1.0",
    "providers": [
        {"name": "frail", "weight": 100, "priority": 1, "expected_latency_ms": 100},
        {"name": "sound", "weight": 100, "expected_latency_ms": 200},
        {"name": "slow", "weight": 100, "expected_latency_ms": 9_000},
    ],
    "circuit_breaker": {"enabled": True, "failure_threshold": 1, "timeout_ms": 60_000},
    "limits": [{"id": "few", "scope": "tenant", "resource": "requests", "limit": 3, "window": "60s"}],
}
QUICK = {"constraints": {"max_latency_ms": 1_000}}
EXPLAIN = {"options": {"explain": True}}


async def dry_run(caller: Foreign, body: Body) -> Body:
    """What the admin act says."""
    reply = await caller.client.request(DRY_RUN, orjson.dumps(body), timeout=5)
    return dict(orjson.loads(reply.data))


async def broken(fleet: Fleet, caller: Foreign) -> str:
    """A tenant whose provider `frail` has an open breaker; one of its three requests is spent."""
    tenant = await fleet.tenant(GUARDED)
    assigned = await caller.watch(ASSIGN)
    await caller.ask(task(tenant, push_assignment=True, options={"retry": {"max_attempts": 1}}))
    work = await assigned.one(tenant_id=tenant)
    await caller.tell(RESULT, success(work, status="error", error_code="HTTP_503"))

    async def settled() -> bool:
        return "breaker.opened" in await fleet.actions(tenant)

    await until(settled, 8, "the breaker is open")
    return tenant


async def told(fleet: Fleet, folder: Path, *options: str) -> Ran:
    """What `router explain` says."""
    where = ("--nats", fleet.nats.url) if "--dry-run" in options else ("--redis", fleet.valkey.url)
    return await run_process("explain", *options, *where, cwd=folder)


async def test_reply_log_and_dry_run_tell_the_same(fleet: Fleet, caller: Foreign) -> None:
    """The dry run foresees what the request is told then, and the log says so afterwards."""
    tenant = await broken(fleet, caller)
    wanted = task(tenant, "wanted", **QUICK)
    foreseen = (await dry_run(caller, wanted))["result"]
    reply = await caller.ask(wanted | EXPLAIN)
    why: Any = reply.context["explain"]
    assert foreseen["decision"] == {k: reply.decision[k] for k in ("provider_id", "reason", "priority")}
    verdicts = [(c["provider_id"], c["verdict"]) for c in why["candidates"]]
    assert verdicts == [("slow", "constraint"), ("frail", "breaker_open"), ("sound", "chosen")]
    assert [(c["provider_id"], c["verdict"]) for c in foreseen["explain"]["candidates"]] == verdicts
    assert 0 < why["candidates"][1]["fit_in_ms"] <= 60_000
    assert [(x["limit_id"], x["left_before"]) for x in why["limits"]] == [("few", 2)]
    assert foreseen["explain"]["limits"] == why["limits"]
    (entry,) = await fleet.audit(tenant, "wanted")
    logged: Any = entry.details
    assert [(c["provider_id"], c["verdict"]) for c in logged["candidates"]] == verdicts
    assert logged["limits"] == [{"limit_id": "few", "left_before": 2}]


async def test_a_dry_run_takes_nothing(fleet: Fleet, caller: Foreign) -> None:
    """However often it is asked, limit, log and key are as before; an answered request is told as a replay."""
    tenant = await fleet.tenant(GUARDED)
    for _ in range(5):
        assert (await dry_run(caller, task(tenant, "r")))["ok"] is True
    assert await fleet.actions(tenant) == []
    decided = await caller.ask(task(tenant, "r"))
    again = (await dry_run(caller, task(tenant, "r")))["result"]
    assert again["explain"]["idempotency"] == "replayed"
    assert again["decision"]["provider_id"] == decided.decision["provider_id"]
    for i in range(2):
        await caller.ask(task(tenant, f"spent-{i}"))
    refused = (await dry_run(caller, task(tenant, "late")))["error"]
    assert refused["code"] == "rate_limit_exceeded"
    assert refused["details"]["explain"]["limits"][0]["left_before"] == 0


async def test_a_dry_run_that_is_no_request_says_what_is_wrong(fleet: Fleet, caller: Foreign) -> None:
    """The same checks as for a decide."""
    tenant = await fleet.tenant()
    reply = await dry_run(caller, task(tenant, constraints={"max_latency_ms": "quick"}))
    assert reply["error"]["code"] == "invalid_request"
    assert "max_latency_ms" in orjson.dumps(reply["error"]).decode()


async def test_router_explain_tells_an_entry(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """By the entry's id, or the decision's: who, why, and what was left; a result's entry leads there too."""
    tenant = await broken(fleet, caller)
    made = await caller.ask(task(tenant, "told", **QUICK))
    (entry,) = await fleet.audit(tenant, "told")
    for name in (entry.id, made.decision["decision_id"]):
        ran = await told(fleet, tmp_path, "--tenant", tenant, "--id", name)
        assert ran.code == 0, ran.err
        for words in ("told (chat)", "got provider sound", "circuit breaker is open", "breaks a constraint", "few"):
            assert words in ran.out
    result = next(e for e in await fleet.audit(tenant) if e.action == "result.settled")
    ran = await told(fleet, tmp_path, "--tenant", tenant, "--id", result.id, "--json")
    assert orjson.loads(ran.out)["action"] == "decision.made"


async def test_router_explain_as_a_dry_run(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """What it would be, in words; a refusal is exit code 1; nothing is charged."""
    tenant = await broken(fleet, caller)
    before = await fleet.actions(tenant)
    options = ("--dry-run", "--tenant", tenant, "--task", "chat")
    ran = await told(fleet, tmp_path, *options, "--max-latency-ms", "1000")
    assert ran.code == 0, ran.err
    assert "would get provider sound" in ran.out
    ran = await told(fleet, tmp_path, *options, "--max-latency-ms", "1")
    assert ran.code == 1
    assert "would be refused: decision_failed" in ran.out
    assert await fleet.actions(tenant) == before


async def test_router_explain_of_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """An entry that is not there is exit code 1, an id that is none is wrong usage, and so is neither way or both."""
    assert (await told(fleet, tmp_path, "--tenant", "nobody", "--id", "1-0")).code == 1
    assert (await told(fleet, tmp_path, "--tenant", "nobody", "--id", "first")).code == 2
    assert (await told(fleet, tmp_path, "--tenant", "nobody")).code == 2
    assert (await told(fleet, tmp_path, "--tenant", "nobody", "--dry-run")).code == 2


async def test_the_baseline_explains_nothing(own: Own) -> None:
    """The wish is ignored, and the decision says what it would need."""
    baseline = {"project": "tests", "version": "1", "current_cp": "CP1-LC", "updated_at": "2026-01-01T00:00:00Z"}
    fleet, caller = await own(pods=1, policies={"default": {"default": PLAIN}}, state=baseline)
    assert len(fleet.pods) == 1
    reply = await caller.ask(task("default") | EXPLAIN)
    assert "explain" not in reply.context
    assert reply.decision["metadata"]["requires_cp"] == {"explain": "CP2-LC"}
    dry = (await dry_run(caller, task("default")))["result"]
    assert dry["explain"] == {"requires_cp": {"explain": "CP2-LC"}}


@pytest.mark.parametrize("shape", ["message", "input"])
async def test_a_message_that_is_the_identity_is_found_by_its_id_alone(
    fleet: Fleet, caller: Foreign, shape: str
) -> None:
    """What gateways do: they know the message_id and nothing else. A repeat and a later step lead there, too."""
    tenant = await fleet.tenant()
    name = f"only-{shape}-{tenant}"
    body: Body = {"version": "1", "tenant_id": tenant}
    body |= {"message": {"message_id": name}} if shape == "message" else {"input": "hi", "message_id": name}
    made = await caller.ask(body)
    for _ in range(2):
        found = await caller.ask({"message_id": name}, subject=GET_DECISION)
        assert found.decision["decision_id"] == made.decision["decision_id"]
        assert (await caller.ask(body)).context["replayed"] is True
    step = await caller.ask(body | {"context": {"status": "503", "retry_attempts": 1}})
    found = await caller.ask({"message_id": name}, subject=GET_DECISION)
    assert found.decision["decision_id"] == step.decision["decision_id"]


@pytest.mark.parametrize("setting", ["needed", "off"])
async def test_the_index_of_messages_may_be_off(own: Own, setting: str) -> None:
    """needed: only messages with another identity are found; off: none by the message alone, all by their identity."""
    policies = {"default": {"default": PLAIN}}
    fleet, caller = await own(pods=1, policies=policies, env={"ROUTER_MESSAGE_INDEX": setting})
    assert len(fleet.pods) == 1
    for name, more in (("own", {}), ("other", {"request_id": "r"})):
        body = {"version": "1", "tenant_id": "default", "message": {"message_id": name}} | more
        assert (await caller.ask(body)).ok
        alone = await caller.ask({"message_id": name}, subject=GET_DECISION)
        assert alone.ok is (setting == "needed" and name == "other")
        with_tenant = await caller.ask({"message_id": name, "tenant_id": "default"}, subject=GET_DECISION)
        assert with_tenant.ok is (setting == "needed" or name == "own")


async def test_a_message_leads_to_its_decision(fleet: Fleet, caller: Foreign) -> None:
    """By the message alone, and with its tenant; a message that two tenants have had is nobody's."""
    one, other = await fleet.tenant(), await fleet.tenant()
    shape = {"version": "1", "message": {"message_id": f"message-of-{one}"}}
    made = await caller.ask(shape | {"tenant_id": one, "request_id": "r"})
    message = {"message_id": f"message-of-{one}"}
    for query in (message, message | {"tenant_id": one}):
        found = await caller.ask(query, subject=GET_DECISION)
        assert found.decision["decision_id"] == made.decision["decision_id"]
    hidden = await caller.ask(message | {"tenant_id": other}, subject=GET_DECISION)
    assert hidden.error["code"] == "decision_not_found"
    await caller.ask(shape | {"tenant_id": other, "request_id": "r"})
    assert (await caller.ask(message, subject=GET_DECISION)).error["code"] == "decision_not_found"
