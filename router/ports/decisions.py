"""Making decisions, storing them, and finishing those that need extensions.

A decision starts as one row in a batch, which the store executes atomically. An admitted row stores its answer under
the request's idempotency name for 24 hours, so a repeat of the request replays the answer.

A request with extensions takes two rows. `DecisionStore.preview` writes only a claim, which keeps other pods from
running the extensions as well. `DecisionStore.decide` then stores the decision. A decision that waits for `post`
extensions is stored as unfinished: `Claims.complete` finishes it, `Claims.abandon` deletes it. If the pod crashes, the
claim expires, and another pod takes the unfinished decision back (`usecases.tasks.unfinished`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from router.domain.decide.figures import Snapshot
from router.domain.decide.outcome import Outcome, RequestFacts, StoredAnswer
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.json import JsonObject
from router.domain.tasks.steps import StepDecision
from router.domain.tasks.task import TaskRecord, Unreadable


class Answers(Protocol):
    """The stored answers of the last 24 hours."""

    async def remembered(self, tenant_id: str, name: bytes) -> StoredAnswer | None:
        """Return the answer that this tenant stored under an idempotency name; None if there is none.

        An unreadable answer counts as none.

        :raises StoreError: Redis did not answer.
        """

    async def stored_answers(self, wanted: Sequence[tuple[str, bytes]]) -> list[StoredAnswer | Unreadable | None]:
        """Return the stored answer for each pair of tenant and idempotency name, in order.

        Takes one round trip per Redis node.

        :raises StoreError: Redis did not answer.
        """

    async def of_requests(self, names: Sequence[tuple[str, bytes]]) -> list[list[StepDecision] | Unreadable]:
        """Return the stored decisions of each request, named by tenant and idempotency name without a step, in order.

        The decision without a step comes first, if there is one. Takes one round trip per Redis node, and a second one
        if callers have walked the fallbacks of a request.

        :raises StoreError: Redis did not answer.
        """

    async def exists_for_any_tenant(self, decision_id: bytes) -> bool:
        """Return whether any tenant has a stored answer with exactly this id.

        :raises StoreError: Redis did not answer.
        """


class DecisionStore(Answers, Protocol):
    """Makes decisions on the state that all pods share."""

    def decide(
        self,
        request: DecideRequest,
        plan: Plan,
        job: bytes | None,
        done: Callable[[Outcome, bytes], None],
        since: float | None = None,
    ) -> None:
        """Queue one row for this tick's batch. Never raises.

        `done(outcome, stamp)` is called exactly once, later, from the event loop. `stamp` is the tenant's current
        policy stamp in the store; it is empty if the store was not reached. The outcome is `Unavailable` when the
        request has waited for the store as long as it may; `since`: the loop time, in s, from which this counts, if it
        is not now.

        The row is atomic: limits, breaker, lease, pin, idempotency, delivery record and audit record change together or
        not at all. It writes nothing after its deadline. `job` is the work item of a pushed task; the store keeps it
        until the task ends.
        """

    def preview(
        self,
        request: DecideRequest,
        plan: Plan,
        done: Callable[[Outcome, bytes], None],
        *,
        claim_ms: int = 0,
        since: float | None = None,
    ) -> None:
        """Queue a row that decides as `decide` would, but writes, charges and audits nothing.

        With `claim_ms`, an admitted row claims the request for that time. The claim's value is the outcome's
        `decision_id`. The outcome is `Busy` if another pod holds the claim. A claim does not stop a `decide`.
        """

    def next_attempt(
        self,
        request: DecideRequest,
        plan: Plan,
        record: TaskRecord,
        job: bytes,
        done: Callable[[Outcome, bytes], None],
    ) -> None:
        """Queue the next attempt of a task that waits for one; `done` as in `decide`.

        The row is atomic as in `decide`. It reserves no units and stores no answer: the reservations of the first
        attempt stay in force. The outcome is `Conflict` if the task does not wait for this attempt any more.
        """

    def now_ms(self, tenant_id: str) -> int:
        """Return the Redis time for decisions of this tenant, estimated from the last reply of its node."""

    async def request_facts(self, answers: Sequence[tuple[str, StoredAnswer]]) -> list[RequestFacts | None]:
        """Return the facts in the audit logs about the requests of these decisions (tenant, answer), in order.

        None: the log has no record of the decision, or has cut it. Takes two round trips.

        :raises StoreError: Redis did not answer.
        """

    def new_decision_id(self, request: DecideRequest, plan: Plan) -> bytes:
        """Return an id for a decision that is made without the store, in the same form as every other id."""

    async def of_message(self, message_id: str, tenant_id: str | None) -> tuple[str, bytes] | None:
        """Return tenant and idempotency name of the last decision for a message.

        Finds the messages that ROUTER_MESSAGE_INDEX covers. With `tenant_id` None, all partitions are
        searched; a message id that several tenants used is then not found.

        :raises StoreError: Redis did not answer.
        """


class Claims(Protocol):
    """Claims on requests with extensions, and the last step of their decisions. Each method is one atomic act.

    `claim` is the `decision_id` that `DecisionStore.preview` returned. Every method raises `StoreError` when Redis did
    not execute it.
    """

    async def take(self, tenant_id: str, name: bytes, *, claim: bytes, claim_ms: int) -> bool:
        """Claim an idempotency name for `claim_ms`, whatever answer is stored under it.

        Returns False if the name is claimed already.
        """

    async def complete(self, tenant_id: str, decision_id: bytes, *, claim: bytes, metadata: JsonObject) -> bool:
        """Mark the decision as finished, add `metadata` to it, and release the claim.

        A repeat returns True and changes nothing. Returns False and writes nothing if the decision is not stored any
        more.
        """

    async def abandon(self, tenant_id: str, decision_id: bytes, *, claim: bytes) -> bool:
        """Delete an unfinished decision and release the claim. The request can then be decided again.

        Returns False and writes nothing if another pod holds a claim. A finished decision stays as it is, and so does a
        different decision under the same name.
        """

    async def release(self, tenant_id: str, name: bytes, *, claim: bytes) -> None:
        """Release the claim on an idempotency name. Does nothing if the name is claimed with another value."""


class FiguresStore(Protocol):
    """The figures that the fleet has learned from settled results."""

    async def snapshots(self, tenant_ids: Sequence[str]) -> list[Snapshot]:
        """Return the current figures of each tenant, in order. Unreadable figures count as none.

        :raises StoreError: Redis did not answer.
        """
