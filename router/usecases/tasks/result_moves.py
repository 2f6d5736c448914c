"""The move that a result needs: one that settles it, or an audit note that it settles nothing."""

from collections.abc import Callable, Mapping

from router.domain.decide.outcome import StoredAnswer
from router.domain.defects import note_of
from router.domain.ids import attempt_in, task_id
from router.domain.policy.model import TenantPolicies, provider_entry
from router.domain.tasks.attempts import why_of
from router.domain.tasks.result import ExecResult, ResultStatus, breaker_verdict, taught
from router.domain.tasks.task import Action, Dispatched, Final, Move, TaskRecord, TaskState
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.ports.tasks import TaskStore
from router.usecases.audit.features import features_of, pack_features
from router.usecases.messages.deliveries import REDRIVEN, REDRIVEN_BY
from router.usecases.policies.lookups import breaker_of, policies_of
from router.usecases.tasks.moves import (
    STATUS_CODES,
    next_attempt_wait_ms,
    note_move,
    split_reservations,
    waiting_move,
)
from router.usecases.tasks.open_result import OpenResult, Refusal, features_of_remembered
from router.usecases.tasks.usage import complete_figures, usage_of_decision, usage_of_task

_RETRIED = (ResultStatus.ERROR, ResultStatus.TIMEOUT)
_STATES = {
    ResultStatus.SUCCESS: TaskState.SUCCEEDED,
    ResultStatus.ERROR: TaskState.FAILED,
    ResultStatus.TIMEOUT: TaskState.TIMED_OUT,
    ResultStatus.CANCELLED: TaskState.CANCELLED,
}


def redriven_note(headers: Mapping[str, str]) -> str | None:
    """The audit note of a redriven message: which dead letter it was and who sent it; None for any other message."""
    sequence = headers.get(REDRIVEN)
    if sequence is None:
        return None
    return f"dead letter {sequence}, sent again by {headers.get(REDRIVEN_BY, 'an unknown principal')}"


class ResultMoves:
    """Builds the moves of results.

    `final` builds the final result for the caller of an ended task. `refused` counts a result that settles nothing.
    `violation(named tenant, owner)` reports a result for another tenant's task.
    """

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        policies: PolicyLookup,
        *,
        tombstone_ms: int,
        final: Callable[[TaskRecord, ExecResult], Final | None],
        refused: Callable[[Refusal], None],
        violation: Callable[[str, str | None], None],
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._policies = policies
        self._tombstone_ms = tombstone_ms
        self._final = final
        self._refused = refused
        self._violation = violation

    async def move_for(self, opened: OpenResult) -> Move | None:
        """The move that settles the result (also set as `opened.move`), an audit note that it settles nothing, or None.

        :raises StoreError: the tenant's policies could not be read.
        """
        result = opened.result
        if opened.unreadable:
            return None
        if opened.record is not None:
            return await self._move_of_task(opened, opened.record)
        if opened.foreign and result.tenant_id is not None:
            # A remembered decision does not name its tenant, so there is no audit log to write this to.
            self._refused(Refusal.VIOLATION)
            self._violation(result.tenant_id, None)
            return None
        if opened.remembered is not None and result.tenant_id is not None:
            return await self._move_of_decision(opened, opened.remembered, result.tenant_id)
        self._refused(Refusal.UNKNOWN if opened.ambiguous is None else Refusal.AMBIGUOUS)
        return None

    async def _move_of_task(self, opened: OpenResult, record: TaskRecord) -> Move:
        result, facts = opened.result, record.facts
        attempt = record.attempt if result.assignment_id is None else attempt_in(result.assignment_id)
        if result.tenant_id is not None and result.tenant_id != facts.tenant_id:
            opened.foreign = True
            self._refused(Refusal.VIOLATION)
            self._violation(result.tenant_id, facts.tenant_id)
            return _note_move(
                opened=opened,
                record=record,
                action=Action.RESULT_VIOLATION,
                attempt=attempt,
                note=f"named tenant {result.tenant_id}",
            )
        if attempt != record.attempt:
            self._refused(Refusal.LATE)
            return _note_move(opened, record, Action.RESULT_LATE, attempt)
        policies = await policies_of(self._policies, facts.tenant_id)
        wait_ms = None
        if result.status in _RETRIED and not record.open:
            wait_ms = await next_attempt_wait_ms(self._tasks, policies, record, why_of(result))
        opened.move = (
            self._ending(opened, record, policies)
            if wait_ms is None
            else self._waiting(record, policies, opened, wait_ms)
        )
        return opened.move

    def _ending(self, opened: OpenResult, record: TaskRecord, policies: TenantPolicies | None) -> Move:
        result, facts = opened.result, record.facts
        corrections, leases = split_reservations(
            facts.reserved,
            record.provider_id,
            record.expected_cost_microusd,
            result,
            given_back=record.open and record.why == Dispatched.FAILED and record.attempt == 1,
        )
        reported = result
        if result.status is ResultStatus.SUCCESS:
            now_ms = self._decisions.now_ms(facts.tenant_id)
            reported = complete_figures(record, result, now_ms)
            opened.usage = usage_of_task(record, reported, now_ms)
        return Move(
            tenant_id=facts.tenant_id,
            decision_id=record.decision_id,
            action=Action.RESULT_SETTLED,
            features=pack_features(features_of(record, record.attempt, result, note=opened.note)),
            code=STATUS_CODES[result.status.value],
            task_id=task_id(record.decision_id),
            attempt=record.attempt,
            state=_STATES[result.status],
            keep_ms=self._tombstone_ms,
            verdict=breaker_verdict(result),
            breaker=breaker_of(policies, facts.policy_id),
            provider_entry=record.provider_entry,
            usage=opened.usage,
            charged_ms=record.charged_ms,
            corrections=corrections,
            leases=leases,
            taught=taught(result),
            final=None if record.open else self._final(record, reported),
            reopens=record.open,
        )

    def _waiting(self, record: TaskRecord, policies: TenantPolicies | None, opened: OpenResult, wait_ms: int) -> Move:
        result = opened.result
        note = note_of("another attempt follows", opened.note)
        return waiting_move(
            record,
            policies,
            Action.RESULT_SETTLED,
            features_of(record, record.attempt, result, note=note),
            why=why_of(result),
            due_ms=self._decisions.now_ms(record.facts.tenant_id) + wait_ms,
            verdict=breaker_verdict(result),
        )

    async def _move_of_decision(self, opened: OpenResult, remembered: StoredAnswer, tenant_id: str) -> Move:
        result = opened.result
        policies = await policies_of(self._policies, tenant_id)
        corrections, leases = split_reservations(
            remembered.reserved, remembered.provider_id, remembered.expected_cost_microusd, result
        )
        if result.status is ResultStatus.SUCCESS and remembered.meter:
            opened.usage = usage_of_decision(remembered, result, tenant_id, self._decisions.now_ms(tenant_id))
        opened.move = Move(
            tenant_id=tenant_id,
            decision_id=remembered.decision_id,
            action=Action.RESULT_SETTLED,
            features=pack_features(features_of_remembered(remembered, result, opened.note)),
            code=STATUS_CODES[result.status.value],
            verdict=breaker_verdict(result),
            breaker=breaker_of(policies, remembered.policy_id),
            provider_entry=provider_entry(remembered.provider_id),
            usage=opened.usage,
            charged_ms=remembered.charged_ms,
            corrections=corrections,
            leases=leases,
            taught=taught(result),
            # No caller has received an unfinished decision, and `complete` appends to its answer.
            mark=b"" if remembered.unfinished else opened.mark,
        )
        return opened.move


def _note_move(opened: OpenResult, record: TaskRecord, action: Action, attempt: int, note: str | None = None) -> Move:
    features = opened.features(attempt, note) or features_of(record, attempt, opened.result, note=note)
    return note_move(record.facts.tenant_id, record.decision_id, action, features, attempt=attempt)
