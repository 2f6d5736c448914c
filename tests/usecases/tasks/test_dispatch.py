"""An assignment never goes without its event, and is marked published only when the streams have both."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from router.domain.decision import Reason
from router.domain.task import BreakerTurn, Move, Moved, MoveOutcome, NotMoved, TaskFacts, TaskRecord, TaskState
from router.ports.bus import Published
from router.telemetry import Telemetry
from router.usecases.tasks.dispatch import Dispatcher
from router.wire.job import encode_job
from tests.store.harness import request
from tests.usecases.fakes.bus import RecordedPublisher

FACTS = TaskFacts("t", "default", 1, "r", "chat", None, 2, 1000, None, None, None, None, None, None, None, ())
RECORD = TaskRecord(TaskState.NEW, 1, 1, 1_000, bytes(16), bytes(8), "p", Reason.WEIGHTED, 0, 0, FACTS)


class Room:
    """A stream that acks when told, and a store that keeps marks."""

    def __init__(self) -> None:
        self.publisher = RecordedPublisher(None)
        self.sent = self.publisher.sent
        self.marked: list[Move] = []
        self.elsewhere: list[NotMoved] = []
        tasks: Any = self
        self.dispatcher = Dispatcher(tasks, self.publisher, Telemetry(CollectorRegistry()), lambda _: 0)

    async def move(self, moves: Sequence[Move]) -> list[MoveOutcome]:
        """`ports.tasks.TaskStore`; one call for each state that the task is said to be in, and then it is moved."""
        self.marked += moves
        return [self.elsewhere.pop(0) if self.elsewhere else Moved(BreakerTurn.UNCHANGED) for _ in moves]


def sent() -> Room:
    """A room whose attempt is on its way."""
    job = encode_job(request("t", "r", push=True), 1000)
    assert isinstance(job, bytes)
    room = Room()
    room.dispatcher.republish(RECORD, job)
    return room


def test_the_event_goes_first() -> None:
    """A connection keeps order: a worker that has the assignment cannot be ahead of the event."""
    event, assignment = (publication for publication, _ in sent().sent)
    assert (event.subject, assignment.subject) == ("caf.exec.assigned.v1", "caf.exec.assign.v1")
    assert event.message_id == f"{assignment.message_id}:assigned"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("outcomes", "marked"),
    [
        ((Published.STORED, Published.STORED), True),
        ((Published.DUPLICATE, Published.DUPLICATE), True),
        ((Published.REFUSED, Published.STORED), False),
        ((Published.STORED, Published.REFUSED), False),
    ],
)
async def test_it_is_marked_when_both_are_there(
    order: tuple[int, int], outcomes: tuple[Published, Published], marked: bool
) -> None:
    """Else the task stays NEW, and the sweeper publishes both again."""
    room = sent()
    for n, which in enumerate(order):
        assert not room.marked
        room.sent[which][1](outcomes[which])
        if n == 0:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(room.dispatcher.drained(), 0)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    assert bool(room.marked) is marked


@pytest.mark.parametrize(
    ("found", "then"),
    [
        ([TaskState.ACCEPTED], [(TaskState.ACCEPTED, False)]),
        ([TaskState.SUCCEEDED], [(TaskState.PUBLISHED, True)]),
        ([TaskState.ACCEPTED, TaskState.FAILED], [(TaskState.ACCEPTED, False), (TaskState.ACCEPTED, True)]),
        ([TaskState.ACCEPTED, TaskState.ACCEPTED], [(TaskState.ACCEPTED, False), (TaskState.ACCEPTED, True)]),
        ([TaskState.NEW], []),
    ],
)
async def test_a_worker_that_was_quicker_than_the_mark(
    found: list[TaskState], then: list[tuple[TaskState, bool]]
) -> None:
    """An accepted task gets the deadline that its worker was told; of one that is further the log is told only."""
    room = sent()
    room.elsewhere = [NotMoved(state, 1) for state in found]
    for _, done in room.sent:
        done(Published.STORED)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    first, *more = room.marked
    assert (first.state, first.note) == (TaskState.PUBLISHED, False)
    assert [(m.state, m.note) for m in more] == then
    assert {m.due_ms for m in room.marked} == {RECORD.deadline_at_ms}
