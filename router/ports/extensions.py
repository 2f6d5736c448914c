"""Extensions: calls, and what the fleet knows of their health."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from router.domain.decision import Answer
from router.domain.extension_health import ExtensionRecord, Settled, Tally
from router.domain.outcome import Admitted, Outcome
from router.domain.plan import Plan
from router.domain.policy.model import StoredPolicy
from router.domain.request import DecideRequest


class Missed(Enum):
    """Why a call of an extension brought no answer."""

    TIMEOUT = "timeout"
    NOBODY = "nobody listens"
    NOT_SENT = "NATS is away"
    TOO_LARGE = "the call is larger than the server takes"


class ExtensionCalls(Protocol):
    """Calls extensions."""

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | Missed:
        """One request, its first answer; `NOBODY` is known at once. Never raises but when cancelled."""


class ExtensionStore(Protocol):
    """How the fleet's extensions do, shared by all pods."""

    async def settle(self, tallies: Sequence[Tally]) -> list[Settled]:
        """Add what was seen to the shared records, each once, and read them; in order.

        A record's breaker turns by what all pods saw. A tally that asks to probe holds the probe afterwards if the
        record names its `probe`.

        :raises StoreError: Redis did not answer; what was seen may have been added.
        """

    async def records(self) -> list[ExtensionRecord]:
        """Every extension that was called within a day, by name.

        :raises StoreError: Redis did not answer.
        """


MakePlan = Callable[[DecideRequest, StoredPolicy], Plan]


class OutcomeReader(Protocol):
    """What the store said of a row → the answer; counts and learns from it."""

    def __call__(self, request: DecideRequest, made: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """As for a request without extensions."""


class Dispatched(Struct, frozen=True):
    """A pushed task that may go out now."""

    request: DecideRequest
    plan: Plan
    outcome: Admitted
    job: bytes


class ExtensionResult(Struct, frozen=True):
    """What came of a request: its answer, and what is to be dispatched after it."""

    answer: Answer
    dispatch: Dispatched | None = None


class Extensions(Protocol):
    """The way of requests whose policy has extensions (`usecases.extensions.flow`)."""

    async def answer(
        self, request: DecideRequest, stored: StoredPolicy, make_plan: MakePlan, read: OutcomeReader
    ) -> ExtensionResult:
        """The whole course of one request. Raises only for bugs."""
