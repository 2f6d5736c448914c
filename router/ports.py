"""What the use cases need from outside. Each method is one atomic act; its docstring is the promise."""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Protocol

from msgspec import Struct

from router.domain.audit import ROUTER, Actor, AuditEntry, AuditQuery, AuditRead, AuditStats, UnknownTenant
from router.domain.extension_health import ExtensionRecord, Settled, Tally
from router.domain.figures import Snapshot
from router.domain.json import JsonObject
from router.domain.outcome import Outcome, Remembered
from router.domain.plan import Plan
from router.domain.policy import TenantPolicies
from router.domain.request import DecideRequest
from router.domain.standing import Counter, Standing
from router.domain.task import Action, Final, Move, MoveOutcome, TaskRecord, Unreadable
from router.domain.view import BreakerView, HeadView, Pulled


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

    async def somebodys(self, decision_id: bytes) -> bool:
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

    def look(
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


class AuditLog(Protocol):
    """A tenant's audit log. Every read names its tenant and is bounded, so that no decision waits behind it."""

    async def look(self, query: AuditQuery, *, before: str | None = None, most: int = 512) -> AuditRead:
        """Read up to `most` (at most 512) entries of the query's time range, newest first, older than `before`.

        `before` need not exist (any more). What does not match is read, but not returned.

        :raises StoreError: Redis did not answer.
        """

    async def after(self, tenant_id: str, last: str, *, most: int = 100) -> list[AuditEntry]:
        """Up to `most` entries (at most 512), oldest first, newer than the entry `last` ("0-0": from the beginning).

        :raises StoreError: Redis did not answer.
        """

    async def one(self, tenant_id: str, entry_id: str) -> AuditEntry | None:
        """The entry of this id.

        :raises InvalidInput: not an id of a log.
        :raises StoreError: Redis did not answer.
        """

    async def stats(self, tenant_id: str, *, sample: int) -> AuditStats:
        """The log at a glance; actions are counted over the newest `sample` entries, in bounded reads.

        :raises StoreError: Redis did not answer.
        """


class FiguresStore(Protocol):
    """Live figures, as settled results have taught them."""

    async def snapshots(self, tenant_ids: Sequence[str]) -> list[Snapshot]:
        """The figures of each tenant as they are now, in order. Figures that cannot be read count as none.

        :raises StoreError: Redis did not answer.
        """


class UnknownTenantLog(Protocol):
    """The fleet's one bounded log of refusals that no tenant's log can hold."""

    async def record(self, records: Sequence[UnknownTenant]) -> None:
        """Append; the oldest beyond the bound go.

        :raises StoreError: Redis did not answer.
        """

    async def newest(self, most: int) -> list[AuditEntry]:
        """Up to `most`, newest first.

        :raises StoreError: Redis did not answer.
        """


class Trimmed(Struct, frozen=True):
    """What became of a log since the last look at it.

    `cut_inside_age` entries went by the bound on length although they were younger than the retention; `at_bound`: more
    will. `unread` entries wait for the export, `lost` ones were cut before it read them. `oldest_ms` 0: an empty log.
    """

    entries: int
    oldest_ms: int
    appended: int
    cut: int
    cut_inside_age: int
    unread: int
    lost: int
    at_bound: bool


class AuditRetention(Protocol):
    """Keeps audit logs within their age. Every method raises `StoreError` when Redis did not do it."""

    async def notice(self, tenant_ids: Sequence[str]) -> None:
        """These tenants have logs: they will be due."""

    async def claim(self, lease_ms: int, most: int) -> list[str]:
        """Take tenants whose log is to be looked at; other pods do not get them for `lease_ms`."""

    async def trim(self, tenant_id: str, *, look_ms: int, full_ms: int, keep_unread: bool) -> Trimmed | None:
        """Cut what is older than the retention, with a bound on the work; the rest is due at once.

        The tenant is due again after `look_ms` (at its bound: `full_ms`) at the latest. `keep_unread`: what the export
        has not read stays. None: there is no log (any more).
        """

    async def exported(self, tenant_id: str) -> str:
        """The last entry that the export has stored outside; "0-0": none."""

    async def mark_exported(self, tenant_id: str, expected: str, entry_id: str, count: int) -> bool:
        """Move that mark on from `expected`, over `count` entries. False: somebody else has moved it."""

    async def due_now(self, tenant_id: str) -> None:
        """Look at this tenant again at once."""


class Inspector(Protocol):
    """Shared state as people want to see it."""

    async def breakers(self, tenant_id: str | None = None) -> list[BreakerView]:
        """The breakers that a tenant's state holds (others are closed and clean); None: of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """

    async def heads(self, tenant_id: str | None = None) -> list[HeadView]:
        """Switch and levers of a tenant, if it has ever had a policy; None: of up to 10,000 tenants.

        :raises StoreError: Redis did not answer.
        """


class ActLog(Protocol):
    """The fleet's one bounded audit log of what belongs to no tenant."""

    async def record(
        self,
        action: Action,
        by: Actor,
        resource_type: str,
        resource_id: str | None,
        details: Mapping[str, str | int | bool],
    ) -> None:
        """Append a record. `details` are plain facts, never a secret.

        :raises StoreError: Redis did not answer.
        """


class KindCensus(Struct, frozen=True):
    """Keys of one kind (`store.keys.KEYS`), and their bytes in Redis as a sample tells."""

    kind: str
    keys: int
    size_bytes: int


class Census(Struct, frozen=True):
    """What a tenant has in Redis. `open_tasks` by state; `whole` False: there was more than a look may walk over."""

    kinds: list[KindCensus]
    audit_entries: int
    open_tasks: dict[str, int]
    whole: bool


class Purged(Struct, frozen=True):
    """Keys (of epochs: fields) that went, or would go, by kind.

    `answers_may_remain`: there are answers of which only the audit log can tell that they are the tenant's (another
    tenant of the partition has the same mark, or an older version wrote them), and the log was cut within a day; they
    expire within 24 hours.
    """

    kinds: dict[str, int]
    answers_may_remain: bool

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.kinds.values())


class TenantStore(Protocol):
    """All that is one tenant's. Every method raises `StoreError` when Redis did not do it; none holds a node up."""

    async def census(self, tenant_id: str) -> Census:
        """Count the tenant's own keys, and its tasks that have not ended."""

    async def end(self, tenant_id: str, *, keep_ms: int) -> int | None:
        """Take its policies and levers away and switch it off for `keep_ms`, as one act; its revision then.

        None: it is not known (any more).
        """

    async def purge(self, tenant_id: str, *, dry_run: bool) -> Purged:
        """Remove what there is of it, in small steps; `dry_run`: only count. Not atomic: `end` it first.

        The switch that `end` has set stays for its time. Usage that is settled and not published yet stays, too.
        """


class SamplePage(Struct, frozen=True):
    """Some of the store's keys: how many of each kind, bytes of a few of each, and how many keys there are in all."""

    total: int
    counts: dict[str, int]
    sizes: dict[str, list[int]]


class StoreSample(Protocol):
    """The store's keys, a page at a time. Every method raises `StoreError` when Redis did not answer."""

    async def lead(self, lease_ms: int) -> bool:
        """Whether this pod is the one that looks, for so long; asked again in time it stays the one."""

    async def page(self) -> SamplePage:
        """The next page of a walk over all keys, which begins anew at its end. Holds no node up."""


class StandingStore(Protocol):
    """Counters and breakers as they stand."""

    async def measure(self, tenants: Sequence[tuple[str, tuple[Counter, ...]]]) -> list[Standing | None]:
        """How these counters and all breakers of tenants stand, in order; None: something of it cannot be read.

        It changes nothing and holds no node up.

        :raises StoreError: Redis did not answer.
        """


class LeverStore(Protocol):
    """Operators' acts: in force with the next decision of every pod, recorded in the same act, idempotent.

    `why` is the operator's own words, for the record. Only what changes something is recorded. All raise `StoreError`
    when Redis did not answer. Policies may be written meanwhile: levers stay.
    """

    async def drain(self, tenant_id: str, provider: str, *, on: bool, by: Actor, why: str | None = None) -> Pulled:
        """Take a provider out of every walk of this tenant, or (`on` False) let it in again."""

    async def force_open(self, tenant_id: str, provider: str, *, by: Actor, why: str | None = None) -> Pulled:
        """Hold a provider's breaker open, whatever its results say."""

    async def reset_breaker(self, tenant_id: str, provider: str, *, by: Actor, why: str | None = None) -> Pulled:
        """Close a breaker and forget what it has counted, also one that is held open."""

    async def switch(self, tenant_id: str, *, on: bool, by: Actor, why: str | None = None) -> Pulled:
        """Switch a tenant off or on: nothing new is decided for one that is off; tasks that run go on."""

    async def forget(
        self, tenant_id: str, name: bytes, *, called: tuple[str, str], by: Actor, why: str | None = None
    ) -> Pulled:
        """Forget the answer under an idempotency name; `called`: field and value that named it, for the record."""

    async def role_used(self, by: Actor, act: str, tenant_id: str | None, outcome: str) -> None:
        """Record that a role was used on the admin surface, in the log that belongs to no tenant."""


class PolicyStore(Protocol):
    """Policies of all tenants, with revisions."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """All policies of a tenant at one moment; None when it has none.

        :raises StoreError: Redis did not answer.
        """

    async def apply(
        self,
        tenant_id: str,
        policy_id: str,
        document: bytes,
        *,
        expect_revision: int | None,
        expect_tenant: int | None = None,
        by: Actor = ROUTER,
        restores: int | None = None,
    ) -> int:
        """Write a canonical policy document and, in the same act, audit record and history; returns the new revision.

        `expect_revision` None: whatever is there; 0: only if the policy is absent; n: only if it is at revision n.
        `expect_tenant`: only if the tenant is at this revision. `restores`: the revision whose content this is: it is
        recorded as a roll-back.

        :raises RevisionConflict: an expectation did not hold; nothing was written.
        :raises QuotaExceeded: the tenant has as many policies as it may have.
        :raises StoreError: Redis did not answer.
        """

    async def delete(self, tenant_id: str, policy_id: str, *, expect_revision: int | None, by: Actor = ROUTER) -> int:
        """Remove a policy, recorded in the same act; returns the tenant's new revision (it grows over deletes too).

        :raises RevisionConflict: the expectation did not hold, or there is no such policy.
        :raises StoreError: Redis did not answer.
        """


class Strikes(Protocol):
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

    async def claim(self, lease_ms: int, most: int) -> Claimed:
        """Take tasks that are due; other pods do not get them for `lease_ms`."""

    async def forget_due(self, task_ids: Sequence[bytes]) -> None:
        """Nothing is due for these any more (they have no record)."""

    async def finals(self, task_ids: Sequence[bytes]) -> list[Final | Unreadable | None]:
        """What the callers of these ended tasks are to be told still, in order; None: nothing (any more)."""

    async def postpone(self, task_ids: Sequence[bytes], due_ms: int) -> None:
        """Look at these again at that time, unless nothing is due for them by now."""

    async def told(self, task_ids: Sequence[bytes]) -> None:
        """The callers of these ended tasks have been told: nothing more is due for them."""

    async def usage_left(self) -> int:
        """How many usage events the whole fleet has settled and not confirmed as published."""

    async def usage_waits(self, usage_ids: Sequence[bytes]) -> list[bool]:
        """Which of these are settled and not confirmed as published, in order."""

    async def usage_waiting(self, most: int) -> list[UsageWaiting]:
        """Up to `most` usage events of each partition that nobody has confirmed as published."""

    async def usage_published(self, usage_ids: Sequence[bytes]) -> int:
        """These are in the stream: drop them from the outbox. Returns how many of them were in it still."""


class Publication(Struct, frozen=True):
    """One message for JetStream. `message_id` becomes Nats-Msg-Id."""

    subject: str
    payload: bytes
    message_id: str
    headers: dict[str, str] = {}
    core_will_do: bool = False
    """Whether a subject without a stream is nothing to tell an operator of."""


class Published(IntEnum):
    """What came of a publish. False only when it is not known to be in the stream."""

    FAILED = 0
    """Refused, or not acked in time: it may be there all the same."""
    STORED = 1
    DUPLICATE = 2
    """The stream had a message of this id already, within its dedup window; it holds that one."""


class Publisher(Protocol):
    """Publishes into streams."""

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """Queue a publish; `done(outcome)` is called exactly once, from the event loop. Never raises."""


class Line(Protocol):
    """The connection to NATS, for whoever must know that something went over it."""

    @property
    def connection(self) -> int:
        """Its number: another one after each reconnect."""

    async def flush(self) -> None:
        """Return when the server has read all that was sent before.

        :raises BusError: not connected, or no answer in time.
        """


class Kept(Struct, frozen=True):
    """One message of a stream; `at_ms` is when the server stored it. Without its data when only headers were read."""

    sequence: int
    subject: str
    at_ms: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def message_id(self) -> str:
        """Its Nats-Msg-Id; empty: it had none."""
        return self.headers.get("Nats-Msg-Id", "")


class History(Protocol):
    """A stream, for looking into. Every method raises `BusError` when it could not be read."""

    def read(
        self, *, since_ms: int | None = None, subject: str | None = None, headers_only: bool = False
    ) -> AsyncGenerator[list[Kept], None]:
        """Batches, oldest first, of what was stored from `since_ms` (Unix time) on, up to the moment of the call."""

    async def holds(self, message_ids: Collection[str], since_ms: int) -> set[str]:
        """Which of these message ids were stored at `since_ms` (Unix time) or later."""

    async def get(self, sequence: int) -> Kept | None:
        """One message; None: it is not there (any more)."""

    async def delete(self, sequence: int) -> None:
        """Take one message out of the stream."""


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


class Claims(Protocol):
    """Decisions whose last step is still to come, and who is at it. Each method is one atomic act.

    `claim` is what `DecisionStore.look` gave as decision_id. Every method raises `StoreError` when Redis did not do it.
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
