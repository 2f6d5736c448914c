"""`router usage reconcile` against a fleet: it proves what is right and finds what is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nats.js.api import DeliverPolicy

from tests.cli.conftest import Ran, run_process
from tests.fleet.foreign import DECIDE, RESULT, USAGE, Body, Foreign, Worker, success, task
from tests.fleet.harness import Fleet, until

Look = Callable[[], Any]


async def reconcile(fleet: Fleet, tenant: str, cwd: Path) -> tuple[int, Body, Ran]:
    """Exit code and report of one tenant."""
    where = ("--nats", fleet.nats.url, "--redis", fleet.valkey.url, "--tenant", tenant)
    ran = await run_process("usage", "reconcile", *where, "--json", cwd=cwd)
    return ran.code, json.loads(ran.out), ran


async def metered(fleet: Fleet, caller: Foreign, count: int) -> tuple[str, list[Body]]:
    """A tenant with so many dispatched tasks that a worker has done, and their usage."""
    tenant = await fleet.tenant()
    usage = await caller.watch(USAGE, DeliverPolicy.NEW)
    await Worker(caller, lambda a: success(a) if a["tenant_id"] == tenant else None).start()
    await caller.all([task(tenant, push_assignment=True) for _ in range(count)])
    return tenant, await usage.many(count, tenant_id=tenant)


async def test_what_was_metered_once_reconciles(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """Dispatched tasks, repeated results, and a decision whose caller ran the task: as many events as successes."""
    tenant, events = await metered(fleet, caller, 20)
    again = {"version": "1", "request_id": "x", "status": "success", "latency_ms": 1, "cost": 0.1}
    await caller.tell(RESULT, again | {"assignment_id": events[0]["assignment_id"], "job": {"type": "chat"}})
    usage = await caller.watch(USAGE, DeliverPolicy.NEW)
    reply = await caller.ask(task(tenant, "own", options={"meter": True}), subject=DECIDE)
    await caller.tell(RESULT, again | {"tenant_id": tenant, "request_id": "own", "job": {"type": "chat"}})
    await usage.one(usage_id=reply.decision["decision_id"])
    code, found, ran = await reconcile(fleet, tenant, tmp_path)
    assert (code, found["ok"], found["findings"]) == (0, True, []), ran
    assert (found["settled"], found["usage"]) == (21, 21)


async def test_lost_and_doubled_usage_is_named(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """A deleted event and one that was published past the dedup window: exit code 1 and their ids."""
    tenant, events = await metered(fleet, caller, 3)
    lost, doubled = events[0], events[1]
    js = caller.client.jetstream()
    info = await js.stream_info("USAGE")
    for sequence in range(info.state.first_seq, info.state.last_seq + 1):
        message = await js.get_msg("USAGE", sequence)
        if message.data is not None and json.loads(message.data)["usage_id"] == lost["usage_id"]:
            await js.delete_msg("USAGE", sequence)
            break
    await js.publish(USAGE, json.dumps(doubled).encode())
    code, found, _ = await reconcile(fleet, tenant, tmp_path)
    assert code == 1
    assert {(f["what"], f["usage_id"]) for f in found["findings"]} == {
        ("missing", lost["usage_id"]),
        ("doubled", doubled["usage_id"]),
    }


async def test_usage_of_a_task_that_failed_is_unearned(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """Somebody published an event for it."""
    _, events = await metered(fleet, caller, 1)
    failed = await fleet.tenant()
    results = await caller.core("_INBOX.reconcile.*")
    options = {"retry": {"max_attempts": 1}, "result_subject": "_INBOX.reconcile.1"}
    worker = Worker(caller, lambda a: success(a, status="error") if a["tenant_id"] == failed else None)
    await worker.start()
    await caller.ask(task(failed, push_assignment=True, options=options))
    end = await results.one(status="error")
    forged = events[0] | {"usage_id": end["task_id"], "tenant_id": failed, "assignment_id": end["assignment_id"]}
    await caller.client.jetstream().publish(USAGE, json.dumps(forged).encode())
    code, found, _ = await reconcile(fleet, failed, tmp_path)
    assert (code, [f["what"] for f in found["findings"]]) == (1, ["unearned"])


async def test_the_fleets_reconciliation_metric_returns_to_zero(fleet: Fleet, caller: Foreign) -> None:
    """Every pod tells the fleet's figure."""
    await metered(fleet, caller, 5)

    async def zero() -> bool:
        return await fleet.outbox() == 0 and await fleet.total("router_usage_reconciliation") == 0

    assert await until(zero, 10, "the outbox is empty")


async def tail(fleet: Fleet, cwd: Path, *words: str) -> Ran:
    """`router usage tail`."""
    return await run_process("usage", "tail", "--nats", fleet.nats.url, *words, cwd=cwd)


async def test_the_newest_usage_is_shown(fleet: Fleet, caller: Foreign, tmp_path: Path) -> None:
    """Of one tenant, oldest first, at most so many; as JSON they are the events."""
    tenant, events = await metered(fleet, caller, 3)
    ran = await tail(fleet, tmp_path, "--tenant", tenant, "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == events
    ran = await tail(fleet, tmp_path, "--tenant", tenant, "-n", "1")
    (line,) = ran.out.splitlines()
    assert all(str(events[-1][name]) in line for name in ("provider_id", "request_id", "cost"))
    ran = await tail(fleet, tmp_path, "--tenant", "nobody")
    assert (ran.code, ran.out) == (1, "")
