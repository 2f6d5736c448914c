"""Dispatched tasks, and the usage events of those that have ended."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.outcome import Admitted
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import Final, Move, MoveOutcome, TaskRecord, Unreadable


class DeliveryFailures(Protocol):
    """Counts of failed deliveries, shared by all pods."""

    async def count(self, cause: str, sequence: int, data: bytes) -> int:
        """Count one more failure of the message with that sequence and content, for this cause. Returns the count.

        The count expires an hour after the last failure.

        :raises StoreError: Redis did not answer; it may have been counted.
        """


class Claimed(Struct, frozen=True):
    """Due tasks that this pod has claimed, and the Redis time in ms of the claim."""

    now_ms: int
    task_ids: tuple[bytes, ...]


class UsageWaiting(Struct, frozen=True):
    """A usage event in the outbox, under its usage_id (16 bytes)."""

    usage_id: bytes
    event: bytes


class TaskStore(Protocol):
    """Dispatched tasks, for the whole fleet. Every method raises `StoreError` when Redis did not execute it."""

    async def records(self, task_ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        """The delivery records, in order; None: unknown. An unreadable record does not affect the others."""

    async def jobs(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """The work items, in order; None: gone or damaged. A damaged item does not affect the others."""

    async def move(self, moves: Sequence[Move]) -> list[MoveOutcome]:
        """Make moves, each atomic; outcomes are in order. A repeated call changes nothing."""

    async def claim(self, lease_ms: int, maximum: int) -> Claimed:
        """Claim due tasks; other pods do not get them for `lease_ms`."""

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """Remove these from the due set; they have no record."""

    async def final_results(self, task_ids: Sequence[bytes]) -> list[Final | Unreadable | None]:
        """The final results that callers of these ended tasks still wait for, in order; None: nothing to send."""

    async def postpone(self, task_ids: Sequence[bytes], due_ms: int) -> None:
        """Make these due again at that time, unless nothing is due for them any more."""

    async def told(self, task_ids: Sequence[bytes]) -> None:
        """The final results of these tasks are published: nothing more is due for them."""

    async def usage_left(self) -> int:
        """How many usage events of the whole fleet are settled, and not yet confirmed as published."""

    async def usage_waits(self, usage_ids: Sequence[bytes]) -> list[bool]:
        """Which of these are settled and not yet confirmed as published, in order."""

    async def usage_waiting(self, maximum: int) -> list[UsageWaiting]:
        """Up to `maximum` usage events of each partition that are not confirmed as published."""

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """These are in the stream: drop them from the outbox. Returns how many the outbox still held."""


class Dispatch(Protocol):
    """Dispatches a pushed task after its reply."""

    def admitted(self, request: DecideRequest, plan: Plan, outcome: Admitted, job: bytes) -> None:
        """Publish the first attempt."""
