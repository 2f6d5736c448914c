"""Extensions: their calls, their health across the fleet, and the flow of requests that use them."""

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
    """Why a call of an extension has no answer."""

    TIMEOUT = "timeout"
    NOBODY = "nobody listens"
    NOT_SENT = "NATS is away"
    TOO_LARGE = "the call is larger than the server takes"


class ExtensionCalls(Protocol):
    """Calls extensions."""

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | Missed:
        """Send one request and return its first answer. `NOBODY` is known at once. Raises only when cancelled."""


class ExtensionStore(Protocol):
    """The health of the fleet's extensions, shared by all pods."""

    async def settle(self, tallies: Sequence[Tally]) -> list[Settled]:
        """Add each tally once to the shared records, and return the records in the same order.

        A record's breaker turns by the results of all pods. A tally that asks for a probe holds it afterwards if the
        record names its `probe`.

        :raises StoreError: Redis did not answer; the tallies may have been added.
        """

    async def records(self) -> list[ExtensionRecord]:
        """Every extension that was called within a day, by name.

        :raises StoreError: Redis did not answer.
        """


MakePlan = Callable[[DecideRequest, StoredPolicy], Plan]


class OutcomeReader(Protocol):
    """Turns the outcome of a row into the answer; counts it and learns from it."""

    def __call__(self, request: DecideRequest, made: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """The answer, as for a request without extensions."""


class Dispatched(Struct, frozen=True):
    """A pushed task that may be published now."""

    request: DecideRequest
    plan: Plan
    outcome: Admitted
    job: bytes


class ExtensionResult(Struct, frozen=True):
    """The result of the extension flow: the answer, and the task to dispatch after it."""

    answer: Answer
    dispatch: Dispatched | None = None


class Extensions(Protocol):
    """The path of requests whose policy has extensions (`usecases.extensions.flow`)."""

    async def answer(
        self, request: DecideRequest, stored: StoredPolicy, make_plan: MakePlan, read: OutcomeReader
    ) -> ExtensionResult:
        """Take one request through the whole flow. Raises only for bugs."""
