"""Where decisions are made and remembered, and what is prepared before one."""

from collections.abc import Callable, Sequence
from typing import Protocol

from router.domain.figures import Snapshot
from router.domain.json import JsonObject
from router.domain.outcome import Outcome, Remembered
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import TaskRecord, Unreadable


class Answers(Protocol):
    """What was answered in the last 24 hours."""

    async def remembered(self, tenant_id: str, name: bytes) -> Remembered | None:
        """The stored answer under an idempotency name, if it is that tenant's; one that cannot be read is none.

        :raises StoreError: Redis did not answer.
        """

    async def all_remembered(self, wanted: Sequence[tuple[str, bytes]]) -> list[Remembered | Unreadable | None]:
        """The stored answers of tenants under idempotency names, in order, read in one round trip a node.

        :raises StoreError: Redis did not answer.
        """

    async def exists_for_any_tenant(self, decision_id: bytes) -> bool:
        """Whether an answer of exactly this id is remembered, whosesoever.

        :raises StoreError: Redis did not answer.
        """


class DecisionStore(Answers, Protocol):
    """Decides, for the whole fleet."""

    def decide(
        self, request: DecideRequest, plan: Plan, job: bytes | None, done: Callable[[Outcome, bytes], None]
    ) -> None:
        """Queue one row for this tick's batch; `done(outcome, stamp)` is called once, later, from the event loop.

        The row is atomic: limits, breaker, lease, pin, idempotency, delivery record and audit change together or not at
        all. It writes nothing after its deadline. `job` is the work item of a pushed task (kept until the task's end).
        `stamp` is the tenant's policy stamp as the store has it now, empty when it was not reached. Never raises.
        """

    def preview(
        self, request: DecideRequest, plan: Plan, done: Callable[[Outcome, bytes], None], *, claim_ms: int = 0
    ) -> None:
        """Queue a row that takes the same way as `decide` and answers alike, but writes, charges and audits nothing.

        With `claim_ms` it claims the request for so long when it is admitted; the claim's value is `decision_id`.
        `Busy`: another one holds the claim. A claim keeps no `decide` away.
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

        Atomic as a decide row, but nothing is charged or remembered: what the first attempt reserved carries on.
        `Conflict`: the task does not wait for this attempt (any more).
        """

    def now_ms(self, tenant_id: str) -> int:
        """The Redis time that decisions of this tenant are made at, estimated from the last reply."""

    def new_decision_id(self, request: DecideRequest, plan: Plan) -> bytes:
        """An id for a decision that was made without the store; of the same form as every other."""

    async def of_message(self, message_id: str, tenant_id: str | None) -> tuple[str, bytes] | None:
        """Tenant and idempotency name of the last decision of a message whose id was not the identity.

        `tenant_id` None: all partitions are asked, and a message that several tenants have had is nobody's.

        :raises StoreError: Redis did not answer.
        """


class Claims(Protocol):
    """Decisions whose last step is still to come, and who is at it. Each method is one atomic act.

    `claim` is the decision_id that `DecisionStore.preview` returned. Every method raises `StoreError` when Redis did
    not do it.
    """

    async def take(self, tenant_id: str, name: bytes, claim: bytes, claim_ms: int) -> bool:
        """Claim an idempotency name, whatever is remembered under it. False: somebody else holds a claim."""

    async def complete(self, tenant_id: str, decision_id: bytes, claim: bytes, metadata: JsonObject) -> bool:
        """The decision is done: remember it as such, with `metadata`, and let the claim go. Once; a repeat is True.

        False: it is not remembered (any more); nothing was written.
        """

    async def abandon(self, tenant_id: str, decision_id: bytes, claim: bytes) -> bool:
        """Forget a decision that is not done, so that its request may be tried again, and let the claim go.

        False: somebody else holds a claim and is at it; nothing was written. A decision that is done, or another one,
        stays as it is.
        """

    async def release(self, tenant_id: str, name: bytes, claim: bytes) -> None:
        """Let the claim on an idempotency name go, if it is this one."""


class FiguresStore(Protocol):
    """Live figures, as settled results have taught them."""

    async def snapshots(self, tenant_ids: Sequence[str]) -> list[Snapshot]:
        """The figures of each tenant as they are now, in order. Figures that cannot be read count as none.

        :raises StoreError: Redis did not answer.
        """
