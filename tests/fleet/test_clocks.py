"""Pods whose clocks are wrong: every moment of a task that leaves the fleet is Redis time or the stream's."""

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fleet.foreign import ASSIGN, ASSIGNED, RESULT, USAGE, Body, Foreign, success, task
from tests.fleet.harness import PLAIN, Fleet, until

HOURS_MS = 2 * 3_600_000
NEAR_MS = 600_000
SHIFTED = """
import time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {s}
time.time_ns = lambda: _time_ns() + {s} * 1_000_000_000
"""


@pytest.fixture(params=[HOURS_MS, -HOURS_MS], ids=["ahead", "behind"])
async def wrong(own: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A fleet of one pod whose wall clock is two hours off; servers and callers have the right time."""
    (tmp_path / "sitecustomize.py").write_text(SHIFTED.format(s=request.param // 1000))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    return await own(pods=1, env={"PYTHONPATH": path})


def near(*moments_ms: float) -> bool:
    """Whether all of them are of these minutes."""
    return all(abs(ms - time.time() * 1000) < NEAR_MS for ms in moments_ms)


def rfc3339_ms(text: str) -> float:
    """Unix ms of a timestamp."""
    return datetime.fromisoformat(text).timestamp() * 1000


async def test_a_task_has_redis_time_whatever_its_pods_clock(wrong: tuple[Fleet, Foreign]) -> None:
    """Assignment, event, usage of a task and of a metered decision, audit, and dead letter."""
    fleet, caller = wrong
    tenant = await fleet.tenant(PLAIN)
    watches = {s: await caller.watch(s) for s in (ASSIGN, ASSIGNED, USAGE, f"{RESULT}.dlq")}
    # The pod's own clock is wrong indeed: its log lines are dated by it.
    logged = orjson.loads(fleet.pods[0].log.read_text().splitlines()[0])
    assert not near(rfc3339_ms(logged["ts"]))
    await caller.ask(task(tenant, push_assignment=True))
    work: Body = await watches[ASSIGN].one(tenant_id=tenant)
    await caller.tell(RESULT, success(work))
    metered = (await caller.ask(task(tenant, options={"meter": True}))).decision["decision_id"]
    reported = {"version": "1", "tenant_id": tenant, "decision_id": metered, "status": "success", "cost": 0.1}
    await caller.tell(RESULT, reported)
    await caller.tell(RESULT, {"version": "1", "assignment_id": "no id", "status": "success"})
    usage = await watches[USAGE].many(2, tenant_id=tenant)
    event = await watches[ASSIGNED].one(tenant_id=tenant)
    letter = await watches[f"{RESULT}.dlq"].one(original_subject=RESULT)
    assert near(*(u["timestamp"] for u in usage))
    assert near(work["created_at_ms"], work["deadline_at_ms"], event["timestamp"], event["deadline_at_ms"])
    assert near(rfc3339_ms(letter["received_at"]))

    async def settled() -> bool:
        return (await fleet.actions(tenant)).count("result.settled") == 2

    await until(settled, 10, "both are settled")
    assert near(*(e.ts_us / 1000 for e in await fleet.audit(tenant)))
