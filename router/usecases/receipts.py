"""Receipts of workers for assignments: accepted ones move the task on, the others are audited; the deadline stays."""

import logging
from collections.abc import Sequence

from router.domain.ids import attempt_in, task_id, task_of
from router.domain.result import AckStatus, ExecAck
from router.domain.task import Action, Move, TaskRecord, TaskState
from router.errors import StoreError
from router.ports import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.deliveries import VIOLATION, DeadLetters, Delivery, again, violation
from router.usecases.gate import AlertSink
from router.usecases.tasks import features_of, note, pack_features
from router.wire.problems import Rejected
from router.wire.results import decode_ack

log = logging.getLogger("router.receipts")

ACK_SUBJECT = "caf.exec.assign.v1.ack"


class Receipts:
    """Takes batches of receipts."""

    def __init__(self, tasks: TaskStore, dead_letters: DeadLetters, telemetry: Telemetry, alerts: AlertSink) -> None:
        self._tasks = tasks
        self._dead_letters = dead_letters
        self._telemetry = telemetry
        self._alerts = alerts

    async def receive(self, batch: Sequence[Delivery]) -> None:
        """Note receipts: accepted ones move the task on; the deadline stays the guarantee."""
        receipts: list[tuple[Delivery, ExecAck]] = []
        for delivery in batch:
            decoded = decode_ack(delivery.data, delivery.headers)
            if isinstance(decoded, Rejected):
                self._dead_letters.give_up(ACK_SUBJECT, delivery, decoded.refused, trace_id=decoded.trace_id)
            else:
                receipts.append((delivery, decoded))
        try:
            records = await self._tasks.records([task_of(a.assignment_id) for _, a in receipts])
            moves = [
                move
                for (delivery, ack), record in zip(receipts, records, strict=True)
                if record is not None and (move := self._move_of(ack, record)) is not None
            ]
            if moves:
                await self._tasks.move(moves)
        except StoreError as fault:
            log.warning("receipts wait for the store: %s", fault, extra={"event": Event.STORE_AWAY})
            for delivery, _ in receipts:
                again(delivery)
            return
        for (delivery, ack), record in zip(receipts, records, strict=True):
            if record is not None and _foreign(ack, record):
                owner = record.facts.tenant_id
                self._dead_letters.give_up(ACK_SUBJECT, delivery, VIOLATION, tenant_id=owner, trace_id=ack.trace_id)
            else:
                delivery.ack()

    def _move_of(self, ack: ExecAck, record: TaskRecord) -> Move | None:
        attempt = attempt_in(ack.assignment_id)
        facts = record.facts
        told = features_of(record, attempt, status=ack.status.value, note=ack.message)
        if _foreign(ack, record):
            self._telemetry.results_refused.labels("violation").inc()
            violation(self._telemetry, self._alerts, ack.tenant_id or "", facts.tenant_id)
            return note(facts.tenant_id, record.decision_id, Action.RESULT_VIOLATION, told, attempt=attempt)
        if attempt != record.attempt:
            return None
        if ack.status is not AckStatus.ACCEPTED:
            return note(facts.tenant_id, record.decision_id, Action.ASSIGNMENT_REJECTED, told, attempt=attempt)
        return Move(
            facts.tenant_id,
            record.decision_id,
            Action.ASSIGNMENT_ACCEPTED,
            pack_features(told),
            task_id=task_id(record.decision_id),
            attempt=attempt,
            below=TaskState.ACCEPTED,
            state=TaskState.ACCEPTED,
            due_ms=record.deadline_at_ms,
        )


def _foreign(ack: ExecAck, record: TaskRecord) -> bool:
    return ack.tenant_id is not None and ack.tenant_id != record.facts.tenant_id
