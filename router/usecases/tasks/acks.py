"""Acks of workers for assignments: `accepted` moves the task to ACCEPTED, any other status starts its next attempt."""

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from router.domain.alert import Door
from router.domain.audit.records import TaskFeatures
from router.domain.decide.decision import Code, Refused
from router.domain.defects import note_of
from router.domain.ids import attempt_in, task_id, task_of
from router.domain.tasks.attempts import why_status
from router.domain.tasks.result import AckStatus, ExecAck, ExecResult, ResultStatus
from router.domain.tasks.task import (
    Action,
    Move,
    Moved,
    MoveFault,
    MoveOutcome,
    NotMoved,
    TaskRecord,
    TaskState,
    Unreadable,
)
from router.ports.bus import Delivery
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.ports.tasks import DeliveryFailures, TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of, pack_features
from router.usecases.messages.deliveries import (
    REDRIVEN,
    VIOLATION,
    DeadLetters,
    FailureBudget,
    report_violation,
    retry_later,
)
from router.usecases.messages.input_defects import InputDefects
from router.usecases.messages.isolation_violations import IsolationViolations
from router.usecases.policies.lookups import policies_of
from router.usecases.tasks.moves import ending_move, next_attempt_wait_ms, note_move, waiting_move
from router.usecases.tasks.task_effects import TaskEffects
from router.wire.problems import Rejected
from router.wire.subjects import ACK, tenant_bound
from router.wire.worker.results import decode_ack

log = logging.getLogger("router.receipts")


class Acks:
    """Consumer of acks. `max_failures`: number of lasting failures after which an ack becomes a dead letter."""

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        policies: PolicyLookup,
        effects: TaskEffects,
        dead_letters: DeadLetters,
        telemetry: Telemetry,
        isolation: IsolationViolations,
        failures: DeliveryFailures,
        *,
        max_failures: int,
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._policies = policies
        self._effects = effects
        self._dead_letters = dead_letters
        self._telemetry = telemetry
        self._defects = InputDefects(telemetry, "ack")
        self._isolation = isolation
        self._budget = FailureBudget(failures, f"{ACK} fault", max_failures)

    async def receive(self, batch: Sequence[Delivery]) -> None:
        """Apply a batch of acks; each delivery is acknowledged, dead-lettered or retried.

        A lost ack does no harm: the attempt's deadline still ends it.

        :raises StoreError: Redis did not apply the batch; deliveries without an answer may be passed in again.
        """
        acks: list[tuple[Delivery, ExecAck]] = []
        for delivery in batch:
            headers = delivery.headers
            if REDRIVEN in headers:
                self._telemetry.redriven.labels("ack").inc()
            decoded = decode_ack(delivery.data, headers, tenant_bound(delivery.subject, open_subject=ACK))
            if isinstance(decoded, Rejected):
                if decoded.refused.code is Code.UNAUTHORIZED:
                    self._isolation.violated(Door.RECEIPT)
                self._dead_letters.refuse(ACK, delivery, decoded.refused, trace_id=decoded.trace_id)
            else:
                self._defects.count(decoded.warnings, decoded.tenant_id)
                acks.append((delivery, decoded))
        stored = await self._tasks.records([task_of(a.assignment_id) for _, a in acks])
        # The ack of an unreadable record is dropped: the attempt's deadline covers it.
        records = [None if isinstance(r, Unreadable) else r for r in stored]
        moves: list[tuple[Delivery, Move]] = []
        for (delivery, ack), record in zip(acks, records, strict=True):
            if record is not None and (move := await self._move_of(ack, record)) is not None:
                moves.append((delivery, move))
        faults = await self._apply(moves) if moves else {}
        failed: list[tuple[Delivery, str, str, str | None]] = []
        for (delivery, ack), record in zip(acks, records, strict=True):
            if record is not None and _foreign(ack, record):
                owner = record.facts.tenant_id
                self._dead_letters.refuse(ACK, delivery, VIOLATION, tenant_id=owner, trace_id=ack.trace_id)
            elif record is not None and delivery.sequence in faults:
                failed.append((delivery, faults[delivery.sequence], record.facts.tenant_id, ack.trace_id))
            else:
                delivery.ack()
        for delivery, fault, tenant_id, trace_id in failed:
            await self._fail(delivery, fault, tenant_id=tenant_id, trace_id=trace_id)

    async def _fail(self, delivery: Delivery, fault: str, *, tenant_id: str, trace_id: str | None) -> None:
        """Retry an ack that hit a damaged key or a bug, or dead-letter it once its failure budget is spent.

        The key may be repaired before the retry. If the ack is never applied, the deadline ends the attempt.
        """
        self._telemetry.store_row_faults.inc()
        log.error(fault, extra={"event": Event.STORE_ROW_FAULT, "tenant_id": tenant_id})
        if await self._budget.spent_by(delivery):
            refused = Refused(Code.INTERNAL, f"the ack could not be applied: {fault}")
            self._dead_letters.give_up(ACK, delivery, refused, tenant_id=tenant_id, trace_id=trace_id)
        else:
            retry_later(delivery)

    async def _apply(self, moves: list[tuple[Delivery, Move]]) -> dict[int, str]:
        """Apply the moves and their effects; return the faults by the delivery's stream sequence."""
        outcomes = await self._tasks.move([move for _, move in moves])
        faults: dict[int, str] = {}
        overtaken: list[Move] = []
        for (delivery, move), outcome in zip(moves, outcomes, strict=True):
            if _overtaken(delivery, move, outcome):
                overtaken.append(replace(move, note=True))
            if isinstance(outcome, MoveFault):
                faults[delivery.sequence] = outcome.message
            if isinstance(outcome, Moved):
                self._telemetry.worker_acks.inc()
                if move.state is TaskState.WAITING:
                    self._effects.next_due(0)
                self._effects.moved(move)
        if overtaken:
            await self._tasks.move(overtaken, replicated=False)
        return faults

    async def _move_of(self, ack: ExecAck, record: TaskRecord) -> Move | None:
        attempt = attempt_in(ack.assignment_id)
        facts = record.facts
        features = features_of(
            record, attempt, status=ack.status.value, note=note_of(ack.message, warnings=ack.warnings)
        )
        if _foreign(ack, record):
            self._telemetry.results_refused.labels("violation").inc()
            report_violation(self._isolation, Door.RECEIPT, ack.tenant_id or "", owner=facts.tenant_id)
            return note_move(facts.tenant_id, record.decision_id, Action.RESULT_VIOLATION, features, attempt=attempt)
        if attempt != record.attempt:
            return None
        if ack.status is not AckStatus.ACCEPTED:
            return await self._rejected(record, features)
        return Move(
            tenant_id=facts.tenant_id,
            decision_id=record.decision_id,
            action=Action.ASSIGNMENT_ACCEPTED,
            features=pack_features(features),
            task_id=task_id(record.decision_id),
            attempt=attempt,
            before_state=TaskState.ACCEPTED,
            state=TaskState.ACCEPTED,
            due_ms=record.deadline_at_ms,
            why=record.why,
        )

    async def _rejected(self, record: TaskRecord, features: TaskFeatures) -> Move:
        """The move for an assignment that its worker declined: the next attempt without backoff, or the task's end.

        A rejection has no effect on the provider's breaker.
        """
        policies = await policies_of(self._policies, record.facts.tenant_id)
        action = Action.ASSIGNMENT_REJECTED
        why = why_status(ResultStatus.ERROR)
        if await next_attempt_wait_ms(self._tasks, policies, record, why) is not None:
            due_ms = self._decisions.now_ms(record.facts.tenant_id)
            return waiting_move(record, policies, action, features, why=why, due_ms=due_ms)
        final = self._effects.final(record, ExecResult(ResultStatus.ERROR, error_code="REJECTED"))
        keep_ms = self._effects.tombstone_ms
        return ending_move(record, policies, action, features, state=TaskState.FAILED, keep_ms=keep_ms, final=final)


def _overtaken(delivery: Delivery, move: Move, outcome: MoveOutcome) -> bool:
    """Whether the result of the same attempt was settled before its ack: then the audit still records the ack.

    Only for a first delivery: a repeated ack was recorded before.
    """
    return (
        move.state is TaskState.ACCEPTED
        and delivery.delivered == 1
        and isinstance(outcome, NotMoved)
        and outcome.attempt == move.attempt
        and outcome.state is not None
        and outcome.state > TaskState.ACCEPTED
    )


def _foreign(ack: ExecAck, record: TaskRecord) -> bool:
    """Whether the ack names another tenant than the task's."""
    return ack.tenant_id is not None and ack.tenant_id != record.facts.tenant_id
