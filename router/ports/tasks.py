"""Tasks on their way, and the usage of those that have ended."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from router.domain.outcome import Admitted
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import Final, Move, MoveOutcome, TaskRecord, Unreadable


class DeliveryFailures(Protocol):
    """How often messages could not be handled, counted by all pods together."""

    async def count(self, cause: str, sequence: int, data: bytes) -> int:
        """One more time for the message at that place with that content, for this cause; returns how often that was.

        Forgotten an hour after the last time.

        :raises StoreError: Redis did not answer; it may have been counted.
        """


class Claimed(Struct, frozen=True):
    """Tasks that are due, claimed for this pod, and the Redis time in ms at which they were."""

    now_ms: int
    task_ids: tuple[bytes, ...]


class UsageWaiting(Struct, frozen=True):
    """A usage event that the outbox holds, under its usage_id (16 bytes)."""

    usage_id: bytes
    event: bytes


class TaskStore(Protocol):
    """Dispatched tasks, for the whole fleet. Every method raises `StoreError` when Redis did not do it."""

    async def records(self, task_ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        """The delivery records, in order; None: not known (any more). One that cannot be read spoils no other."""

    async def jobs(self, task_ids: Sequence[bytes]) -> list[bytes | None]:
        """The work items, in order; None: not there (any more), or damaged. One that is damaged spoils no other."""

    async def move(self, moves: Sequence[Move]) -> list[MoveOutcome]:
        """Make moves, each atomic; outcomes are in order. A repeated call changes nothing."""

    async def claim(self, lease_ms: int, maximum: int) -> Claimed:
        """Take tasks that are due; other pods do not get them for `lease_ms`."""

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """Nothing is due for these any more (they have no record)."""

    async def final_results(self, task_ids: Sequence[bytes]) -> list[Final | Unreadable | None]:
        """What the callers of these ended tasks are to be told still, in order; None: nothing (any more)."""

    async def postpone(self, task_ids: Sequence[bytes], due_ms: int) -> None:
        """Look at these again at that time, unless nothing is due for them by now."""

    async def told(self, task_ids: Sequence[bytes]) -> None:
        """The callers of these ended tasks have been told: nothing more is due for them."""

    async def usage_left(self) -> int:
        """How many usage events the whole fleet has settled and not confirmed as published."""

    async def usage_waits(self, usage_ids: Sequence[bytes]) -> list[bool]:
        """Which of these are settled and not confirmed as published, in order."""

    async def usage_waiting(self, maximum: int) -> list[UsageWaiting]:
        """Up to `maximum` usage events of each partition that nobody has confirmed as published."""

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """These are in the stream: drop them from the outbox. Returns how many of them were in it still."""


class Dispatch(Protocol):
    """What happens to a pushed task after its reply."""

    def admitted(self, request: DecideRequest, plan: Plan, outcome: Admitted, job: bytes) -> None:
        """Publish the first attempt."""
