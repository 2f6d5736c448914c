"""Making and storing decisions, and preparing requests with extensions."""

from collections.abc import Callable, Sequence
from typing import Protocol

from router.domain.figures import Snapshot
from router.domain.json import JsonObject
from router.domain.outcome import Outcome, Remembered
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import TaskRecord, Unreadable


class Answers(Protocol):
    """The answers of the last 24 hours."""

    async def remembered(self, tenant_id: str, name: bytes) -> Remembered | None:
        """The stored answer under an idempotency name, if it belongs to that tenant. An unreadable answer counts as
        none.

        :raises StoreError: Redis did not answer.
        """

    async def all_remembered(self, wanted: Sequence[tuple[str, bytes]]) -> list[Remembered | Unreadable | None]:
        """The stored answers of tenants under idempotency names, in order, with one round trip per node.

        :raises StoreError: Redis did not answer.
        """

    async def exists_for_any_tenant(self, decision_id: bytes) -> bool:
        """Whether an answer with exactly this id is stored, for any tenant.

        :raises StoreError: Redis did not answer.
        """


class DecisionStore(Answers, Protocol):
    """Decides, for the whole fleet."""

    def decide(
        self, request: DecideRequest, plan: Plan, job: bytes | None, done: Callable[[Outcome, bytes], None]
    ) -> None:
        """Queue one row for this tick's batch. `done(outcome, stamp)` is called once, later, from the event loop.

        The row is atomic: limits, breaker, lease, pin, idempotency, delivery record and audit change together or not at
        all. It writes nothing after its deadline. `job` is the work item of a pushed task; it is kept until the task
        ends. `stamp` is the tenant's current policy stamp in the store, empty when the store was not reached. Never
        raises.
        """

    def preview(
        self, request: DecideRequest, plan: Plan, done: Callable[[Outcome, bytes], None], *, claim_ms: int = 0
    ) -> None:
        """Queue a row that takes the same path as `decide` and answers alike, but writes, charges and audits nothing.

        With `claim_ms`, an admitted row claims the request for that time; the claim's value is `decision_id`. `Busy`:
        another pod holds the claim. A claim does not stop a `decide`.
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

        Atomic like a decide row, but it charges and stores nothing: the reservations of the first attempt carry on.
        `Conflict`: the task does not wait for this attempt any more.
        """

    def now_ms(self, tenant_id: str) -> int:
        """The Redis time at which decisions of this tenant are made, estimated from the last reply."""

    def new_decision_id(self, request: DecideRequest, plan: Plan) -> bytes:
        """An id for a decision that was made without the store, in the same form as every other id."""

    async def of_message(self, message_id: str, tenant_id: str | None) -> tuple[str, bytes] | None:
        """Tenant and idempotency name of the last decision of a message whose id was not the identity.

        `tenant_id` None: all partitions are asked. A message of several tenants is not found.

        :raises StoreError: Redis did not answer.
        """


class Claims(Protocol):
    """Decisions that still need their last step, and the claims on them. Each method is one atomic act.

    `claim` is the decision_id that `DecisionStore.preview` returned. Every method raises `StoreError` when Redis did
    not execute it.
    """

    async def take(self, tenant_id: str, name: bytes, claim: bytes, claim_ms: int) -> bool:
        """Claim an idempotency name, whatever answer is stored under it. False: another pod holds a claim."""

    async def complete(self, tenant_id: str, decision_id: bytes, claim: bytes, metadata: JsonObject) -> bool:
        """Mark the decision as finished, with `metadata`, and release the claim. A repeat returns True and changes
        nothing.

        False: the decision is not stored any more; nothing was written.
        """

    async def abandon(self, tenant_id: str, decision_id: bytes, claim: bytes) -> bool:
        """Forget an unfinished decision, so that its request may be tried again, and release the claim.

        False: another pod holds a claim and works on it; nothing was written. A finished decision, or another one,
        stays as it is.
        """

    async def release(self, tenant_id: str, name: bytes, claim: bytes) -> None:
        """Release the claim on an idempotency name, if it is this one."""


class FiguresStore(Protocol):
    """The figures that settled results have taught."""

    async def snapshots(self, tenant_ids: Sequence[str]) -> list[Snapshot]:
        """The current figures of each tenant, in order. Unreadable figures count as none.

        :raises StoreError: Redis did not answer.
        """
