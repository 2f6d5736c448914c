"""What a result asks of the store: the one move that settles it, or the note that it cannot be settled."""

from collections.abc import Callable, Mapping
from enum import StrEnum

from msgspec import Struct

from router.domain.attempts import why_of
from router.domain.audit import TaskFeatures
from router.domain.ids import attempt_in, idempotency_name, name_in, task_id
from router.domain.outcome import Remembered
from router.domain.policy.model import TenantPolicies, provider_entry
from router.domain.result import ExecResult, Status, breaker_verdict, taught
from router.domain.task import Action, Final, Move, TaskRecord, TaskState, Unreadable
from router.ports.bus import Delivery
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.ports.tasks import TaskStore
from router.usecases.audit.features import features_of, pack_features
from router.usecases.messages.deliveries import REDRIVEN, REDRIVEN_BY
from router.usecases.policies.lookups import breaker_of, policies_of
from router.usecases.tasks.moves import STATUS_CODES, next_of, note, split_reservations, waiting_move
from router.usecases.tasks.usage import measured, usage_of_decision, usage_of_task

_RETRIED = (Status.ERROR, Status.TIMEOUT)
_STATES = {
    Status.SUCCESS: TaskState.SUCCEEDED,
    Status.ERROR: TaskState.FAILED,
    Status.TIMEOUT: TaskState.TIMED_OUT,
    Status.CANCELLED: TaskState.CANCELLED,
}


class Refusal(StrEnum):
    """Why a result settles nothing."""

    UNKNOWN = "unknown"
    LATE = "late"
    DUPLICATE = "duplicate"
    VIOLATION = "violation"
    UNREADABLE = "unreadable"
    FAULT = "fault"


class OpenResult(Struct):
    """A result that is being settled: its record or remembered answer, and the move that settles it, if one does."""

    delivery: Delivery
    result: ExecResult
    redriven: str | None = None
    record: TaskRecord | None = None
    kept: Remembered | None = None
    move: Move | None = None
    usage: bytes = b""
    foreign: bool = False
    unreadable: str = ""
    fault: str = ""

    def found(self, record: TaskRecord | Unreadable | None) -> None:
        """What the store has of its task."""
        if isinstance(record, Unreadable):
            self.unreadable = record.message
        else:
            self.record = record

    @property
    def failed(self) -> bool:
        """Whether it could be neither settled nor refused."""
        return not self.foreign and bool(self.unreadable or self.fault)

    @property
    def provider_id(self) -> str:
        """Whose breaker it is about."""
        if self.record is not None:
            return self.record.provider_id
        return "" if self.kept is None else self.kept.provider_id

    def features(self, attempt: int, told: str | None = None) -> TaskFeatures | None:
        """What the audit keeps of it; None: nothing is known of its task."""
        words = "; ".join(x for x in (told, self.redriven) if x is not None) or None
        if self.record is not None:
            return features_of(self.record, attempt, self.result, note=words)
        return None if self.kept is None else _features_of_kept(self.kept, self.result, words)


def redriven_by(headers: Mapping[str, str]) -> str | None:
    """Who sent it again and which dead letter it was; None: it comes for the first time."""
    letter = headers.get(REDRIVEN)
    return None if letter is None else f"dead letter {letter}, sent again by {headers.get(REDRIVEN_BY, 'somebody')}"


class ResultMoves:
    """Makes the moves. `final` makes what the caller of an ended task is told.

    `refused` counts a result that settles nothing, `violation` tells of one for a foreign task.
    """

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        policies: PolicyLookup,
        *,
        tombstone_ms: int,
        final: Callable[[TaskRecord, ExecResult], Final | None],
        wall_ms: Callable[[], int],
        refused: Callable[[Refusal], None],
        violation: Callable[[str, str | None], None],
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._policies = policies
        self._tombstone_ms = tombstone_ms
        self._final = final
        self._wall_ms = wall_ms
        self._refused = refused
        self._violation = violation

    async def of(self, one: OpenResult) -> Move | None:
        """The move that settles it (then `one.move` is it), or a note that it cannot be, or nothing.

        :raises StoreError: the tenant's policies could not be read.
        """
        result = one.result
        if one.unreadable:
            return None
        if one.record is not None:
            return await self._of_task(one, one.record)
        if one.foreign and result.tenant_id is not None:
            # An answer that is not dispatched does not tell its tenant: there is no log to put this into.
            self._refused(Refusal.VIOLATION)
            self._violation(result.tenant_id, None)
            return None
        if one.kept is not None and result.tenant_id is not None:
            return await self._of_remembered(one, one.kept, result.tenant_id)
        self._refused(Refusal.UNKNOWN)
        return None

    async def _of_task(self, one: OpenResult, record: TaskRecord) -> Move:
        result, facts = one.result, record.facts
        attempt = record.attempt if result.assignment_id is None else attempt_in(result.assignment_id)
        if result.tenant_id is not None and result.tenant_id != facts.tenant_id:
            one.foreign = True
            self._refused(Refusal.VIOLATION)
            self._violation(result.tenant_id, facts.tenant_id)
            return _note(one, record, Action.RESULT_VIOLATION, attempt, f"named tenant {result.tenant_id}")
        if attempt != record.attempt:
            self._refused(Refusal.LATE)
            return _note(one, record, Action.RESULT_LATE, attempt)
        policies = await policies_of(self._policies, facts.tenant_id)
        wait = None
        if result.status in _RETRIED:
            wait = await next_of(self._tasks, policies, record, why_of(result))
        one.move = self._ending(one, record, policies) if wait is None else self._waiting(record, policies, one, wait)
        return one.move

    def _ending(self, one: OpenResult, record: TaskRecord, policies: TenantPolicies | None) -> Move:
        result, facts = one.result, record.facts
        corrections, leases = split_reservations(
            facts.reserved, record.provider_id, record.expected_cost_microusd, result
        )
        told = result
        if result.status is Status.SUCCESS:
            told = measured(record, result, self._decisions.now_ms(facts.tenant_id))
            one.usage = usage_of_task(record, told, self._wall_ms())
        return Move(
            facts.tenant_id,
            record.decision_id,
            Action.RESULT_SETTLED,
            pack_features(features_of(record, record.attempt, result, note=one.redriven)),
            STATUS_CODES[result.status.value],
            task_id(record.decision_id),
            record.attempt,
            state=_STATES[result.status],
            keep_ms=self._tombstone_ms,
            verdict=breaker_verdict(result),
            breaker=breaker_of(policies, facts.policy_id),
            provider_entry=record.provider_entry,
            usage=one.usage,
            charged_ms=record.charged_ms,
            corrections=corrections,
            leases=leases,
            taught=taught(result),
            final=self._final(record, told),
        )

    def _waiting(self, record: TaskRecord, policies: TenantPolicies | None, one: OpenResult, wait: int) -> Move:
        told = "another attempt follows" if one.redriven is None else f"another attempt follows; {one.redriven}"
        return waiting_move(
            record,
            policies,
            Action.RESULT_SETTLED,
            features_of(record, record.attempt, one.result, note=told),
            why=why_of(one.result),
            due_ms=self._decisions.now_ms(record.facts.tenant_id) + wait,
            verdict=breaker_verdict(one.result),
        )

    async def _of_remembered(self, one: OpenResult, kept: Remembered, tenant_id: str) -> Move:
        result = one.result
        policies = await policies_of(self._policies, tenant_id)
        corrections, leases = split_reservations(kept.reserved, kept.provider_id, kept.expected_cost_microusd, result)
        if result.status is Status.SUCCESS and kept.meter:
            one.usage = usage_of_decision(kept, result, tenant_id, self._wall_ms())
        one.move = Move(
            tenant_id,
            kept.decision_id,
            Action.RESULT_SETTLED,
            pack_features(_features_of_kept(kept, result, one.redriven)),
            STATUS_CODES[result.status.value],
            verdict=breaker_verdict(result),
            breaker=breaker_of(policies, kept.policy_id),
            provider_entry=provider_entry(kept.provider_id),
            usage=one.usage,
            charged_ms=kept.charged_ms,
            corrections=corrections,
            leases=leases,
            taught=taught(result),
        )
        return one.move


def _note(one: OpenResult, record: TaskRecord, action: Action, attempt: int, told: str | None = None) -> Move:
    features = one.features(attempt, told) or features_of(record, attempt, one.result, note=told)
    return note(record.facts.tenant_id, record.decision_id, action, features, attempt=attempt)


def name_of(result: ExecResult) -> bytes | None:
    """The idempotency name under which the decision that a result names is remembered."""
    tenant_id = result.tenant_id
    if tenant_id is None:
        return None
    if result.decision_id is not None:
        return name_in(result.decision_id)
    if result.idempotency_key is not None:
        return idempotency_name(tenant_id, "key", result.idempotency_key)
    return None if result.request_id is None else idempotency_name(tenant_id, "request", result.request_id)


def _features_of_kept(kept: Remembered, result: ExecResult, told: str | None) -> TaskFeatures:
    return TaskFeatures(
        result.request_id or "",
        kept.policy_id,
        kept.policy_revision,
        kept.provider_id,
        None,
        None,
        result.correlation.trace_id,
        result.status.value,
        result.error_code,
        result.latency_ms,
        result.cost_microusd,
        result.tokens,
        told,
    )
