"""Extensions: calling them, their health across the fleet, and the flow of requests that use them."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from router.domain.decide.decision import Answer
from router.domain.decide.outcome import Admitted, Outcome
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.extensions.health import ExtensionRecord, Settled, Tally
from router.domain.policy.model import StoredPolicy


class CallFailure(Enum):
    """Why a call of an extension got no reply. The value is the reason that callers and operators read."""

    TIMEOUT = "timeout"
    NO_RESPONDERS = "no service subscribes to its subject"
    NOT_SENT = "the pod is not connected to NATS"
    TOO_LARGE = "the call is larger than the NATS server accepts"


class ExtensionCalls(Protocol):
    """Calls extensions over NATS request/reply."""

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | CallFailure:
        """Send one request and return the first reply, or why there is none. Raises only when cancelled.

        `CallFailure.NO_RESPONDERS`, `NOT_SENT` and `TOO_LARGE` are returned at once; only `TIMEOUT` takes `timeout_ms`.
        """


class ExtensionStore(Protocol):
    """The health records of extensions, which all pods share."""

    async def settle(self, tallies: Sequence[Tally]) -> list[Settled]:
        """Add each tally to its shared record, and return the updated records in the same order.

        A record's breaker opens and closes by the results of all pods. A tally may ask for the right to probe an open
        breaker; the request is granted if the returned record carries the tally's `probe`.

        :raises StoreError: Redis did not answer. The tallies may have been added.
        """

    async def records(self) -> list[ExtensionRecord]:
        """Return the record of every extension that was called within the last day, ordered by name.

        :raises StoreError: Redis did not answer.
        """


MakePlan = Callable[[DecideRequest, StoredPolicy], Plan]
"""Plans a request under a policy, with the features, deadlines and figures of this moment."""


class OutcomeReader(Protocol):
    """Turns the outcome of a row into the answer, counts it, and observes the policy stamp."""

    def __call__(self, request: DecideRequest, plan: Plan, outcome: Outcome, stamp: bytes) -> Answer:
        """Return the answer that a request without extensions would get for this outcome."""


class Dispatched(Struct, frozen=True):
    """A pushed task that may be published, with its work item `job`."""

    request: DecideRequest
    plan: Plan
    outcome: Admitted
    job: bytes


class ExtensionResult(Struct, frozen=True):
    """The result of the extension flow: the answer, and the task to dispatch after the reply."""

    answer: Answer
    dispatch: Dispatched | None = None


class Extensions(Protocol):
    """The flow of requests whose policy has extensions (`usecases.extensions.flow`)."""

    async def answer(
        self,
        request: DecideRequest,
        stored: StoredPolicy,
        *,
        make_plan: MakePlan,
        read: OutcomeReader,
        waited_s: float = 0.0,
    ) -> ExtensionResult:
        """Answer one request, with all of its extensions. Raises only for bugs.

        `waited_s`: how long the request has waited for the store before.
        """
