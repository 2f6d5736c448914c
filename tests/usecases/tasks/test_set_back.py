"""Tasks that were dispatched while Redis' clock was ahead, after it was set back."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted
from router.domain.ids import partition_in, task_id
from router.domain.tasks.task import Move, TaskRecord, TaskState
from tests.fleet.harness import until
from tests.usecases.fakes.settling import INBOX, Fate, World

HOUR = 3_600_000
DEADLINE = 20_000


async def published(here: World, state: TaskState, ahead: int) -> bytes:
    """A task that a worker may have; its deadline lies so far ahead."""
    made = await here.ask("r", 1, result_subject=INBOX, max_attempts=1, deadline_ms=DEADLINE)
    assert isinstance(made, Admitted)
    task = task_id(made.decision_id)
    (record,) = await here.tasks.records([task])
    assert isinstance(record, TaskRecord)
    move = Move(record.facts.tenant_id, record.decision_id, None, b"", task_id=task, attempt=record.attempt)
    await here.tasks.move([replace(move, before_state=state, state=state, due_ms=record.deadline_at_ms + ahead)])
    return task


async def due_in(here: World, task: bytes) -> float:
    """In how many ms the task is due."""
    seconds, _ = await here.pod.nodes.call("TIME")
    score = await here.pod.nodes.call("ZSCORE", here.pod.keys.due(partition_in(task)), task)
    return float(score) - int(seconds) * 1000


@pytest.mark.parametrize("state", [TaskState.PUBLISHED, TaskState.ACCEPTED])
@pytest.mark.parametrize("ahead", [HOUR, 2 * HOUR, 365 * 24 * HOUR])
async def test_a_task_times_out_after_its_own_deadline(world: Callable[[], Any], state: TaskState, ahead: int) -> None:
    """The first poll finds it and gives its worker the whole deadline; missed, it ends as any other."""
    here: World = await world()
    task = await published(here, state, ahead)
    sweeper = here.hands(Fate()).sweeper
    assert await sweeper.poll() == 1
    assert DEADLINE - 10_000 < await due_in(here, task) <= DEADLINE + 1_000
    assert here.told == []
    assert await here.is_due(task)
    await sweeper.poll()

    async def confirmed() -> bool:
        return await here.pod.nodes.call("ZSCORE", here.pod.keys.due(partition_in(task)), task) is None

    await until(confirmed, 5, "the final result is confirmed")
    assert [told["error_code"] for told in here.told] == ["DEADLINE_EXCEEDED"]


@pytest.mark.parametrize("ahead", [0, 1_000, 20 * 60_000])
async def test_a_deadline_that_may_be_is_left_alone(world: Callable[[], Any], ahead: int) -> None:
    """Up to the longest deadline and a minute nothing tells a task of before the step from another."""
    here: World = await world()
    task = await published(here, TaskState.PUBLISHED, ahead)
    assert await here.hands(Fate()).sweeper.poll() == 0
    assert await due_in(here, task) > ahead


async def test_one_poll_of_some_looks(world: Callable[[], Any]) -> None:
    """The first one, and one of twenty later."""
    here: World = await world()
    assert (await here.tasks.claim(5_000, maximum=10)).task_ids == ()
    task = await published(here, TaskState.PUBLISHED, 2 * HOUR)
    found = [await here.tasks.claim(5_000, maximum=10) for _ in range(20)]
    assert [c.task_ids for c in found] == [()] * 19 + [(task,)]
    assert found[-1].set_back == {task}
