"""Dispatched tasks, their final results, and their usage events.

A dispatched task has a delivery record, a work item and an entry in the due set, all written by the row that admits it.
Moves change the record until the task ends. Its last move stores the final result in place of the work item and the
usage event in the outbox. Both stay until they are published, so a crash of any pod loses neither: the sweeper of
another pod claims the due task and continues.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.tasks.task import Final, Move, MoveOutcome, TaskRecord, Unreadable


class DeliveryFailures(Protocol):
    """Counts how often a message could not be handled, across all pods."""

    async def count(self, cause: str, sequence: int, data: bytes) -> int:
        """Count one more failure for this cause, and return the number so far.

        The message is identified by its sequence number and its content, because a stream that was created again starts
        with the same sequence numbers. The count expires an hour after the last failure.

        :raises StoreError: Redis did not answer. The failure may have been counted.
        """


class Claimed(Struct, frozen=True):
    """Due tasks that this pod has claimed. `now_ms`: Redis time of the claim.

    `set_back`: tasks that were due later than any deadline allows, because Redis' clock was set back since then.
    """

    now_ms: int
    task_ids: tuple[bytes, ...]
    set_back: frozenset[bytes] = frozenset()


class OutboxEntry(Struct, frozen=True):
    """A usage event in the outbox, with its usage_id (16 bytes)."""

    usage_id: bytes
    event: bytes


class TaskStore(Protocol):
    """The dispatched tasks of the whole fleet. Every method raises `StoreError` when Redis did not execute it."""

    async def records(self, task_ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        """Return the delivery records, in order; None: unknown. An unreadable record does not affect the others."""

    async def jobs(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the work items, in order; None: deleted or damaged. A damaged item does not affect the others."""

    async def move(self, moves: Sequence[Move], *, replicated: bool = True) -> list[MoveOutcome]:
        """Make moves, each of them atomic. Outcomes are in order. Repeating a call changes nothing.

        `replicated`: somebody will rely on the outcome, so replicas must have it (`ROUTER_WAIT_REPLICAS`). False is for
        audit notes, which a repeated call writes again.

        :raises NotReplicated: the moves are made, and too few replicas have them.
        """

    async def claim(self, lease_ms: int, *, maximum: int) -> Claimed:
        """Claim up to `maximum` due tasks. Other pods do not get these tasks for `lease_ms`.

        At the first claim, and at some later ones, this also claims tasks from before a step back of Redis' clock.
        """

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """Remove tasks that have no record from the due set."""

    async def final_results(self, task_ids: Sequence[bytes]) -> list[Final | Unreadable | None]:
        """Return the final results of ended tasks that are not published yet, in order; None: nothing to publish.

        With `ROUTER_WAIT_REPLICAS`, replicas have them. An unreadable result does not affect the others.
        """

    async def postpone(self, task_ids: Sequence[bytes], due_ms: int) -> None:
        """Make tasks due again at `due_ms` (Redis time). A task that is not in the due set stays out of it."""

    async def final_results_published(self, kept: Mapping[bytes, bytes], keep_ms: int) -> None:
        """Delete the final results of these tasks after they were published, and remove the tasks from the due set.

        `kept`: task → the body that is kept for repeats, for `keep_ms` (0: nothing is kept). Not atomic; repeating the
        call completes it.
        """

    async def kept_final_results(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """Return the bodies that `final_results_published` has kept, in order; None: there is none."""

    async def usage_left(self) -> int:
        """Return the number of usage events in the outbox of the whole fleet.

        They are settled, and no stream has confirmed them yet.
        """

    async def usage_is_waiting(self, usage_ids: Sequence[bytes]) -> list[bool]:
        """Return for each usage event, in order, whether it is in the outbox."""

    async def usage_waiting(self, maximum: int) -> list[OutboxEntry]:
        """Return up to `maximum` usage events of each partition's outbox.

        With `ROUTER_WAIT_REPLICAS`, replicas have them.
        """

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """Remove usage events that a stream has stored from the outbox. Returns how many of them it still held."""


class Dispatch(Protocol):
    """Dispatches pushed tasks."""

    def admitted(self, request: DecideRequest, plan: Plan, outcome: Admitted, job: bytes) -> None:
        """Publish the first attempt of an admitted task. Called after the reply is sent."""
