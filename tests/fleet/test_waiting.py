"""The final result for whoever waits for it, and the worker of the README at work."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from tests.cli.conftest import Ran, run_process
from tests.fleet.conftest import Own
from tests.fleet.foreign import ACK, ASSIGN, RESULT, USAGE, Body, Foreign, Worker, success, task
from tests.fleet.harness import Fleet, until

ROOT = Path(__file__).parents[2]
ONCE = {"version": "1.0", "providers": [{"name": "only", "weight": 1, "expected_latency_ms": 10_000}]}
"""Slow enough that no deadline passes while a command starts."""


async def decided(fleet: Fleet, cwd: Path, tenant: str, *words: str) -> tuple[Ran, Body]:
    """`router decide --wait --json`."""
    where = ("--nats", fleet.nats.url, "--tenant", tenant, "--wait", "--json")
    ran = await run_process("decide", *where, *words, cwd=cwd)
    assert ran.out, ran
    return ran, json.loads(ran.out)


@pytest.fixture
async def served(own: Own) -> AsyncIterator[Fleet]:
    """A fleet with `python examples/worker.py` until the end of the test; it ends by SIGTERM with code 0."""
    fleet, _ = await own(pods=2)
    env = {k: v for k, v in os.environ.items() if not k.startswith("ROUTER_")} | {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "examples/worker.py", fleet.nats.url, cwd=ROOT, env=env
    )
    yield fleet
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_the_worker_of_the_readme_does_its_task(served: Fleet, tmp_path: Path) -> None:
    """`router decide --wait` shows its output; what it will not do is rejected, and the task ends."""
    fleet = served
    tenant = await fleet.tenant(ONCE)
    payload = ("--payload", json.dumps({"text": "a b c d", "words": 2}))
    ran, found = await decided(fleet, tmp_path, tenant, "--task", "summarize", *payload, "--timeout", "20")
    assert (ran.code, found["result"]["output"]) == (0, {"summary": "a b"})
    ran, found = await decided(
        fleet, tmp_path, tenant, "--task", "summarize", "--payload", '{"text": 1}', "--timeout", "20"
    )
    assert (ran.code, found["result"]["status"], found["result"]["error_code"]) == (1, "error", "BAD_PAYLOAD")
    ran, found = await decided(fleet, tmp_path, tenant, "--task", "dance", "--timeout", "20")
    assert (ran.code, found["result"]["status"], found["result"]["error_code"]) == (1, "error", "REJECTED")
    assert await until(lambda: _heard(fleet), 15, "both pods have heard of the worker")


async def _heard(fleet: Fleet) -> bool:
    return await fleet.total("router_workers") >= len(fleet.pods)


def test_the_readme_shows_the_worker_that_was_run() -> None:
    """Word for word."""
    assert (ROOT / "examples" / "worker.py").read_text() in (ROOT / "README.md").read_text()


async def waiting(caller: Foreign, tenant: str, name: str, **options: Any) -> tuple[Any, Body]:
    """A pushed task with a result subject: what comes there, and the first assignment."""
    results = await caller.core(f"_INBOX.{name}")
    works = await caller.watch(ASSIGN)
    body = task(tenant, push_assignment=True, options={"result_subject": f"_INBOX.{name}"} | options)
    reply = await caller.ask(body)
    assert reply.ok, reply.body
    return results, await works.one(tenant_id=tenant)


async def test_a_success_is_told(fleet: Fleet, caller: Foreign) -> None:
    """With task, attempt, figures and output; once, also when the result is repeated."""
    tenant = await fleet.tenant(ONCE)
    results, work = await waiting(caller, tenant, "w-success")
    for _ in range(2):
        await caller.tell(RESULT, success(work, output={"x": 1}))
    told = await results.one()
    assert (told["ok"], told["task_id"], told["attempt"], told["output"]) == (True, work["task_id"], 1, {"x": 1})
    audit = await until(lambda: _audited(fleet, tenant, "result.duplicate"), 10, "the repeat is a duplicate")
    assert audit
    assert len(results.seen) == 1


async def _audited(fleet: Fleet, tenant: str, action: str) -> bool:
    return action in await fleet.actions(tenant)


async def test_the_last_error_is_told(fleet: Fleet, caller: Foreign) -> None:
    """All attempts used up: the caller hears of the last one only."""
    tenant = await fleet.tenant()
    await Worker(
        caller, lambda a: success(a, status="error", error_code="X") if a["tenant_id"] == tenant else None
    ).start()
    results, _ = await waiting(caller, tenant, "w-error", retry={"max_attempts": 3})
    told = await results.one()
    assert (told["ok"], told["status"], told["attempt"], told["error_code"]) == (False, "error", 3, "X")
    assert len(results.seen) == 1


async def test_a_missed_deadline_is_told(fleet: Fleet, caller: Foreign) -> None:
    """No worker at all."""
    tenant = await fleet.tenant(ONCE)
    results, _ = await waiting(caller, tenant, "w-timeout", deadline_ms=300, retry={"max_attempts": 1})
    told = await results.one()
    assert (told["ok"], told["status"], told["error_code"]) == (False, "timeout", "DEADLINE_EXCEEDED")


async def test_a_rejection_is_told_when_no_attempt_is_left(fleet: Fleet, caller: Foreign) -> None:
    """As an error of the code REJECTED."""
    tenant = await fleet.tenant(ONCE)
    results, work = await waiting(caller, tenant, "w-rejected", retry={"max_attempts": 1})
    await caller.tell(ACK, {"assignment_id": work["assignment_id"], "status": "rejected", "reason": "no"})
    assert (await results.one())["error_code"] == "REJECTED"


async def test_a_stream_may_take_the_result(own: Own) -> None:
    """A subject under an allowed prefix that a stream covers."""
    fleet, caller = await own(pods=1, env={"ROUTER_RESULT_SUBJECT_PREFIXES": "done."})
    await caller.client.jetstream().add_stream(name="DONE", subjects=["done.>"])
    tenant = await fleet.tenant(ONCE)
    works = await caller.watch(ASSIGN)
    body = task(tenant, push_assignment=True, options={"result_subject": "done.acme"})
    assert (await caller.ask(body)).ok
    await caller.tell(RESULT, success(await works.one(tenant_id=tenant)))
    assert (await (await caller.watch("done.acme")).one())["ok"] is True


async def test_a_stream_that_refuses_the_result_gets_it_later(own: Own) -> None:
    """A full stream holds up the result and not the task; when there is room it has the result, once, by its id.

    A repeat is a further message.
    """
    env = {"ROUTER_RESULT_SUBJECT_PREFIXES": "done.", "ROUTER_PUBLISH_TIMEOUT": "1s"}
    fleet, caller = await own(pods=1, env=env)
    js = caller.client.jetstream()
    await js.add_stream(name="DONE", subjects=["done.>"], max_msgs=1, discard=DiscardPolicy.NEW)
    await js.publish("done.filler", b"x")
    tenant = await fleet.tenant(ONCE)
    works, usage = await caller.watch(ASSIGN), await caller.watch(USAGE)
    body = task(tenant, push_assignment=True, options={"result_subject": "done.acme"})
    assert (await caller.ask(body)).ok
    work = await works.one(tenant_id=tenant)
    await caller.tell(RESULT, success(work))
    assert await usage.one(tenant_id=tenant)
    await until(lambda: fleet.pods[0].logged("publish.failed"), 20, "the stream refuses the result")
    await js.purge_stream("DONE")
    await js.update_stream(name="DONE", subjects=["done.>"], max_msgs=10, discard=DiscardPolicy.NEW)
    done = await caller.watch("done.acme")
    assert (await done.one(30))["ok"] is True
    assert done.headers[0]["Nats-Msg-Id"] == f"{work['task_id']}:final"
    assert (await caller.ask(body)).context["replayed"] is True
    await done.many(2)
    assert done.headers[1]["Nats-Msg-Id"].startswith(f"{work['task_id']}:final:")
    assert len(done.seen) == 2


async def test_a_wait_that_ends_without_a_result_tells_the_state(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """Exit code 1; a repeat of the request after the end tells that end at once."""
    tenant = await fleet.tenant(ONCE)
    works, usage = await caller.watch(ASSIGN), await caller.watch(USAGE)
    asked = ("--task", "x", "--request-id", "r1", "--timeout")
    ran, found = await decided(fleet, tmp_path, tenant, *asked, "0.5")
    assert (ran.code, found["result"]["state"]) == (1, "published")
    await caller.tell(RESULT, success(await works.one(tenant_id=tenant)))
    await usage.one(tenant_id=tenant)
    ran, found = await decided(fleet, tmp_path, tenant, *asked, "20")
    assert (ran.code, found["result"]["state"]) == (0, "succeeded")
