"""An assignment never goes without its event; what became of its publish decides over mark, end, or another try."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from router.domain.audit.records import TaskFeatures
from router.domain.decide.decision import PinState, Reason
from router.domain.decide.outcome import Admitted
from router.domain.decide.request import Correlation
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.policy.model import provider
from router.domain.tasks.task import (
    BreakerTurn,
    Dispatched,
    Move,
    Moved,
    MoveOutcome,
    NotMoved,
    TaskFacts,
    TaskRecord,
    TaskState,
)
from router.ports.bus import Published
from router.telemetry import Telemetry
from router.usecases.tasks.dispatch import Dispatcher
from router.wire.worker.job import encode_job
from tests.store.harness import Ask, policy, request
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
        self.ended: list[tuple[bytes, int, str]] = []
        self.now_ms = 0
        tasks: Any = self
        self.dispatcher = Dispatcher(
            tasks, self.publisher, Telemetry(CollectorRegistry()), lambda _: self.now_ms, late_ms=500
        )
        self.dispatcher.on_undispatched = lambda task, attempt, why: self.ended.append((task, attempt, why))

    def again(self) -> None:
        """The sweeper finds the task."""
        job = encode_job(request("t", "r", push=True), 1000)
        assert isinstance(job, bytes)
        self.dispatcher.republish(RECORD, job)

    async def move(self, moves: Sequence[Move], *, replicated: bool = True) -> list[MoveOutcome]:
        """`ports.tasks.TaskStore`; one call for each state that the task is said to be in, and then it is moved."""
        self.marked += moves
        return [self.elsewhere.pop(0) if self.elsewhere else Moved(BreakerTurn.UNCHANGED) for _ in moves]


def sent() -> Room:
    """A room whose attempt is on its way."""
    room = Room()
    room.again()
    return room


def test_the_event_goes_first() -> None:
    """A connection keeps order: a worker that has the assignment cannot be ahead of the event."""
    event, assignment = (publication for publication, _ in sent().sent)
    assert (event.subject, assignment.subject) == ("caf.exec.assigned.v1", "caf.exec.assign.v1")
    assert event.message_id == f"{assignment.message_id}:assigned"


STORED = (Published.STORED, Published.DUPLICATE)
NOT_STORED = (Published.REFUSED, Published.UNSENT)


@pytest.mark.parametrize("assignment", STORED)
@pytest.mark.parametrize("event", [*STORED, *NOT_STORED, Published.UNANSWERED])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_stored_assignment_is_marked_after_its_event(
    order: tuple[int, int], event: Published, assignment: Published
) -> None:
    """Whatever became of the event: the provider has the assignment, and answers for it."""
    room = sent()
    for n, which in enumerate(order):
        assert not room.marked
        room.sent[which][1]((event, assignment)[which])
        if n == 0:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(room.dispatcher.drained(), 0)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    assert [(m.state, m.why) for m in room.marked] == [(TaskState.PUBLISHED, 0)]
    assert room.ended == []


async def test_an_event_without_an_answer_holds_the_mark_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the deadline would find a NEW task, as if no worker had it."""
    monkeypatch.setattr("router.usecases.tasks.dispatch.EVENT_GRACE_S", 0.01)
    room = sent()
    room.sent[1][1](Published.STORED)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    assert len(room.marked) == 1
    room.sent[0][1](Published.UNANSWERED)
    await asyncio.sleep(0)
    assert len(room.marked) == 1


@pytest.mark.parametrize("event", [*STORED, *NOT_STORED, Published.UNANSWERED])
@pytest.mark.parametrize("assignment", NOT_STORED)
async def test_an_assignment_that_was_never_stored_ends_its_task(assignment: Published, event: Published) -> None:
    """With the server's words, at once; it is not marked as published."""
    room = sent()
    room.sent[0][1](event)
    failed = room.sent[1][0].failed
    assert failed is not None
    failed("maximum messages exceeded")
    room.sent[1][1](assignment)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    assert room.marked == []
    assert [(attempt, why) for _, attempt, why in room.ended] == [(1, "maximum messages exceeded")]


async def test_without_an_answer_the_task_is_left_to_the_sweeper() -> None:
    """The stream may hold it: neither marked nor ended."""
    room = sent()
    room.sent[0][1](Published.STORED)
    room.sent[1][1](Published.UNANSWERED)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    assert (room.marked, room.ended) == ([], [])


async def test_an_attempt_whose_publish_is_under_way_is_not_published_twice() -> None:
    """The sweeper finds the NEW task in the meantime; once it is settled, it may be published again."""
    room = sent()
    room.again()
    assert len(room.sent) == 2
    room.sent[1][1](Published.UNANSWERED)
    room.again()
    assert len(room.sent) == 4


@pytest.mark.parametrize(("now_ms", "why"), [(500, 0), (501, Dispatched.LATE)])
async def test_an_assignment_that_is_stored_late_is_marked_so(now_ms: int, why: int) -> None:
    """More than `late_ms` after the begin of the attempt: its deadline is no verdict on the provider."""
    room = sent()
    room.now_ms = now_ms
    for _, done in room.sent:
        done(Published.STORED)
    await asyncio.wait_for(room.dispatcher.drained(), 5)
    assert [m.why for m in room.marked] == [why]


def test_a_publish_is_not_tried_beyond_the_deadline() -> None:
    """Event and assignment end with the attempt."""
    assert [publication.within_s for publication, _ in sent().sent] == [1.0, 1.0]


def test_an_assignment_may_leave_its_stream_a_minute_after_its_deadline() -> None:
    """The event stays as long as its stream keeps it."""
    assert [publication.ttl_s for publication, _ in sent().sent] == [None, 61]


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


async def test_each_value_of_an_attempt_reaches_the_field_of_its_name() -> None:
    """Request, plan and outcome are carried over by position: in the work item, its event and the audit record."""
    room = Room()
    room.now_ms = 7
    made = replace(
        request("t", "req-1", user="user-1", push=True),
        correlation=Correlation(trace_id="trace-1"),
        client_ip="10.0.0.1",
    )
    first = provider("first", expected_latency_ms=100, expected_cost_microusd=9)
    ask = Ask(made, policy(first, policy_id="pol-1", revision=3))

    job = encode_job(made, 1000)
    assert isinstance(job, bytes)
    outcome = Admitted(0, Reason.STICKY, b"\x00", PinState.HELD, bytes(16))
    record = replace(RECORD, decision_id=bytes(range(16)))
    room.dispatcher.next_attempt(made, ask.plan, record, outcome, job)
    event, assignment = (msgspec.json.decode(publication.payload) for publication, _ in room.sent)
    for _, done in room.sent:
        done(Published.STORED)
    await asyncio.wait_for(room.dispatcher.drained(), 30)
    (move,) = room.marked
    task = task_id(record.decision_id)
    own = to_text(assignment_id(task, 2))
    ids = {"assignment_id": own, "task_id": to_text(task), "attempt": 2}
    assert (
        event.items()
        >= {
            **ids,
            "provider_id": "first",
            "policy_id": "pol-1",
            "policy_revision": 3,
            "reason": "sticky",
            "timestamp": 7,
            "deadline_at_ms": 5007,
            "trace_id": "trace-1",
        }.items()
    )
    assert assignment.items() >= {**ids, "created_at_ms": 7, "deadline_at_ms": 5007}.items()
    decision = {"provider_id": "first", "expected_latency_ms": 100, "expected_cost": 0.000009, "reason": "sticky"}
    assert assignment["decision"].items() >= decision.items()
    features = msgspec.msgpack.decode(move.features, type=TaskFeatures)
    assert features == TaskFeatures("req-1", "pol-1", 3, "first", own, "user-1", "trace-1", ip_address="10.0.0.1")
    assert (move.decision_id, move.task_id, move.attempt, move.due_ms) == (record.decision_id, task, 2, 5007)
