"""Marks attempts as published in their records. Marks that wait for the store share one call."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from router.domain.audit.records import TaskFeatures
from router.domain.ids import task_id
from router.domain.tasks.task import Action, Dispatched, Move, MoveOutcome, NotMoved, TaskState
from router.errors import StoreError
from router.ports.bus import Published
from router.ports.tasks import TaskStore
from router.usecases.audit.features import pack_features

log = logging.getLogger("router.dispatch")


class InFlight:
    """An attempt of which event and assignment are not both settled yet. `stored`: how the assignment went."""

    __slots__ = ("assignment_id", "event_settled", "late_at_ms", "mark", "reason", "stored", "timer")

    def __init__(self, assignment_id: str, mark: Move, late_at_ms: int) -> None:
        self.assignment_id, self.mark, self.late_at_ms = assignment_id, mark, late_at_ms
        self.event_settled = False
        self.stored: Published | None = None
        self.reason = ""
        self.timer: asyncio.TimerHandle | None = None


class Marks:
    """The marks that wait. `closed` is called for each attempt once its mark is written, or left to the sweeper."""

    def __init__(self, tasks: TaskStore, now_ms: Callable[[str], int], closed: Callable[[InFlight], None]) -> None:
        self._tasks = tasks
        self._now_ms = now_ms
        self._closed = closed
        self._marks: list[tuple[InFlight, Move]] = []
        self._marking: asyncio.Task[None] | None = None

    def add(self, in_flight: InFlight) -> None:
        """Mark an attempt as published, with the next call."""
        in_flight.timer = None
        mark = in_flight.mark
        if self._now_ms(mark.tenant_id) > in_flight.late_at_ms:
            mark = replace(mark, why=Dispatched.LATE)
        self._marks.append((in_flight, mark))
        if self._marking is None:
            self._marking = asyncio.get_running_loop().create_task(self._mark_all())

    async def _mark_all(self) -> None:
        try:
            while self._marks:
                waiting, self._marks = self._marks, []
                marks = [mark for _, mark in waiting]
                try:
                    outcomes = await self._tasks.move(marks, replicated=False)
                    while marks := _overtaken(marks, outcomes):
                        outcomes = await self._tasks.move(marks, replicated=False)
                except StoreError as fault:
                    # The sweeper publishes unmarked attempts again, with the same message id: the stream drops them.
                    log.warning("assignments could not be marked as published: %s", fault)
                for in_flight, _ in waiting:
                    self._closed(in_flight)
        finally:
            self._marking = None


def _overtaken(marks: Sequence[Move], outcomes: Sequence[MoveOutcome]) -> list[Move]:
    """The moves for tasks whose worker acked or finished before the mark was written.

    An accepted task gets the mark's deadline, which is the one its worker received. For a task in a later state the
    audit only records that the attempt was published.
    """
    late: list[Move] = []
    for mark, outcome in zip(marks, outcomes, strict=True):
        if mark.note or not isinstance(outcome, NotMoved):
            continue
        if outcome.state is not None and outcome.state > TaskState.PUBLISHED:
            if outcome.state is TaskState.ACCEPTED and mark.state is TaskState.PUBLISHED:
                late.append(replace(mark, before_state=TaskState.WAITING, state=TaskState.ACCEPTED))
            else:
                late.append(replace(mark, note=True))
    return late


def mark_of(tenant_id: str, decision: bytes, attempt: int, deadline_at_ms: int, features: TaskFeatures) -> Move:
    """The move that marks an attempt as published."""
    return Move(
        tenant_id,
        decision,
        Action.ASSIGNMENT_PUBLISHED,
        pack_features(features),
        task_id=task_id(decision),
        attempt=attempt,
        before_state=TaskState.PUBLISHED,
        state=TaskState.PUBLISHED,
        due_ms=deadline_at_ms,
    )
