"""What a request's way through its extensions comes to, and what it needs of `usecases.decide`."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from router.domain.decision import Answer
from router.domain.outcome import Admitted, Outcome
from router.domain.plan import Plan
from router.domain.policy.model import StoredPolicy
from router.domain.request import DecideRequest

MakePlan = Callable[[DecideRequest, StoredPolicy], Plan]


class Read(Protocol):
    """What the store said of a row → the answer; counts and learns from it."""

    def __call__(self, request: DecideRequest, made: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """As for a request without extensions."""


class Dispatched(Struct, frozen=True):
    """A pushed task that may go out now."""

    request: DecideRequest
    plan: Plan
    outcome: Admitted
    job: bytes


class Course(Struct, frozen=True):
    """What came of a request: its answer, and what is to be dispatched after it."""

    answer: Answer
    dispatch: Dispatched | None = None


class Extensions(Protocol):
    """The way of requests whose policy has extensions (`usecases.extended`)."""

    async def answer(self, request: DecideRequest, stored: StoredPolicy, make_plan: MakePlan, read: Read) -> Course:
        """The whole course of one request. Raises only for bugs."""
