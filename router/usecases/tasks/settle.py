"""Settling of results: each result that a worker or caller reports takes effect once.

    result → its task's record (or the remembered decision) → one move: state, breaker, reservations, leases, audit,
    usage in the outbox, final result for the caller → usage and final result published → both deleted once stored

The first result of an attempt wins. A repeat changes nothing. A result of a superseded attempt or an ended task is
late, and one that names another tenant's task is a violation. All are counted and audited under the task's own tenant.
"""

import logging
from collections.abc import Callable, Sequence

from router.domain.alert import Door
from router.domain.decision import Code, Refused
from router.domain.defects import note_of
from router.domain.ids import task_id, task_of
from router.domain.result import Status
from router.domain.task import Action, Move, Moved, MoveFault, MoveOutcome, NotMoved, TaskState, Unreadable
from router.ports.bus import Delivery
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.ports.tasks import DeliveryFailures, TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.messages.deliveries import VIOLATION, DeadLetters, FailureBudget, report_violation, retry_later
from router.usecases.messages.input_defects import InputDefects
from router.usecases.messages.isolation import Isolation
from router.usecases.tasks.moves import note_move
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.result_moves import OpenResult, Refusal, ResultMoves, redriven_note, remembered_name
from router.usecases.tasks.task_effects import TaskEffects
from router.wire.problems import Rejected
from router.wire.results import decode_result
from router.wire.subjects import RESULT

log = logging.getLogger("router.settle")

# Factor on `max_failures` for a result whose record is unreadable. The retries then usually last over a minute, so that
# a newer pod can take the result during a roll.
UNREADABLE_FACTOR = 4


class Settle:
    """Consumer of results. `max_failures`: number of lasting failures after which a result becomes a dead letter."""

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        policies: PolicyLookup,
        outbox: Outbox,
        dead_letters: DeadLetters,
        effects: TaskEffects,
        telemetry: Telemetry,
        isolation: Isolation,
        failures: DeliveryFailures,
        *,
        max_failures: int,
        wall_ms: Callable[[], int],
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._effects = effects
        self._telemetry = telemetry
        self._defects = InputDefects(telemetry, "result")
        self._isolation = isolation
        self._faults = FailureBudget(failures, f"{RESULT} fault", max_failures)
        self._unreadable = FailureBudget(failures, f"{RESULT} unreadable", UNREADABLE_FACTOR * max_failures)
        self._moves = ResultMoves(
            tasks,
            decisions,
            policies,
            tombstone_ms=effects.tombstone_ms,
            final=effects.final,
            wall_ms=wall_ms,
            refused=self._refused,
            violation=self._violation,
        )

    async def results(self, batch: Sequence[Delivery]) -> None:
        """Settle a batch of results; each delivery is acknowledged, dead-lettered or retried.

        :raises StoreError: Redis did not settle the batch; deliveries without an answer may be passed in again.
        """
        all_opened = self._open(batch)
        await self._look_up(all_opened)
        moves: list[Move] = []
        settling: list[OpenResult | None] = []
        for opened in all_opened:
            move = await self._moves.move_for(opened)
            if move is not None:
                moves.append(move)
                settling.append(opened if opened.move is not None else None)
        outcomes = await self._tasks.move(moves) if moves else []
        notes: list[Move] = []
        for settled, outcome in zip(settling, outcomes, strict=True):
            if settled is not None:
                notes += self._apply(settled, outcome)
        if notes:
            await self._tasks.move(notes)
        for opened in all_opened:
            if not opened.failed:
                self._acknowledge(opened)
        for opened in all_opened:
            if opened.failed:
                await self._fail(opened)

    def _open(self, batch: Sequence[Delivery]) -> list[OpenResult]:
        """Decode a batch; results that cannot be decoded become dead letters."""
        opened: list[OpenResult] = []
        for delivery in batch:
            headers = delivery.headers
            redriven = redriven_note(headers)
            if redriven is not None:
                self._telemetry.redriven.labels("result").inc()
            decoded = decode_result(delivery.data, headers)
            if isinstance(decoded, Rejected):
                if decoded.refused.code is Code.UNAUTHORIZED:
                    self._isolation.violated(Door.RESULT)
                self._dead_letters.give_up(RESULT, delivery, decoded.refused, trace_id=decoded.trace_id)
            else:
                self._defects.count(decoded.warnings, decoded.tenant_id)
                opened.append(OpenResult(delivery, decoded, note_of(redriven, warnings=decoded.warnings)))
        return opened

    def _acknowledge(self, opened: OpenResult) -> None:
        """Acknowledge a handled result; one for another tenant's task becomes a dead letter."""
        trace_id = opened.result.correlation.trace_id
        if opened.foreign:
            owner = None if opened.record is None else opened.record.facts.tenant_id
            self._dead_letters.give_up(RESULT, opened.delivery, VIOLATION, tenant_id=owner, trace_id=trace_id)
        else:
            opened.delivery.ack()

    async def _fail(self, opened: OpenResult) -> None:
        """Retry a result that could not be settled, or dead-letter it once its failure budget is spent."""
        if opened.unreadable:
            # During a roll a newer pod may read the record. If it is damaged, the dead letter keeps the result.
            log.error("record of a result cannot be read: %s", opened.unreadable, extra={"event": Event.RESULT_REFUSED})
            budget, refusal = self._unreadable, Refusal.UNREADABLE
            why = "the record of its task or decision cannot be read"
        else:
            budget, refusal = self._faults, Refusal.FAULT
            why = f"the result could not be settled: {opened.fault}"
        if not await budget.spent_by(opened.delivery):
            retry_later(opened.delivery)
            return
        self._refused(refusal)
        tenant_id = None if opened.record is None else opened.record.facts.tenant_id
        trace_id = opened.result.correlation.trace_id
        self._dead_letters.give_up(
            RESULT, opened.delivery, Refused(Code.INTERNAL, why), tenant_id=tenant_id, trace_id=trace_id
        )

    async def _look_up(self, all_opened: list[OpenResult]) -> None:
        """Read the decisions and tasks that results refer to: one round trip for decisions, one for task records.

        An id that is unknown under its tenant costs one more round trip, because it may belong to another tenant.
        """
        of_tasks = [(o, task_of(o.result.assignment_id)) for o in all_opened if o.result.assignment_id is not None]
        of_decisions: list[tuple[OpenResult, tuple[str, bytes]]] = []
        for opened in all_opened:
            r = opened.result
            if r.assignment_id is None and r.tenant_id is not None and (name := remembered_name(r)) is not None:
                of_decisions.append((opened, (r.tenant_id, name)))
        answers = await self._decisions.stored_answers([names for _, names in of_decisions]) if of_decisions else []
        for (opened, _), remembered in zip(of_decisions, answers, strict=True):
            if isinstance(remembered, Unreadable):
                opened.set_record(remembered)
            elif remembered is not None and opened.result.decision_id in (None, remembered.decision_id):
                opened.remembered = remembered
                if remembered.pushed:
                    # The decision was dispatched: the task's record is decisive.
                    of_tasks.append((opened, task_id(remembered.decision_id)))
            elif remembered is None and opened.result.decision_id is not None:
                # The decision may be another tenant's: the record of its task names the owner.
                of_tasks.append((opened, task_id(opened.result.decision_id)))
        records = await self._tasks.records([task for _, task in of_tasks]) if of_tasks else []
        for (opened, _), record in zip(of_tasks, records, strict=True):
            opened.set_record(record)
        for opened, _ in of_decisions:
            decision_id = opened.result.decision_id
            unknown = opened.record is None and opened.remembered is None and not opened.unreadable
            if decision_id is not None and unknown:
                opened.foreign = await self._decisions.exists_for_any_tenant(decision_id)

    def _apply(self, opened: OpenResult, outcome: MoveOutcome) -> list[Move]:
        """Count the outcome of a settling move and start its effects; return audit notes to write."""
        move, result = opened.move, opened.result
        if move is None:
            return []
        match outcome:
            case Moved(turn):
                self._telemetry.results_settled.labels(result.status.value).inc()
                self._effects.breaker_turned(turn, move.tenant_id, opened.provider_id)
                if opened.usage:
                    self._telemetry.usage_settled.inc()
                    usage_id = move.decision_id if move.task_id is None else move.task_id
                    self._outbox.publish(usage_id, opened.usage)
                if opened.record is not None and not move.state.final:
                    self._effects.next_due(move.due_ms - self._decisions.now_ms(move.tenant_id))
                self._effects.moved(move)
                return []
            case NotMoved(state, _):
                late = state is TaskState.TIMED_OUT and result.status is not Status.TIMEOUT
                self._refused(Refusal.LATE if late else Refusal.DUPLICATE)
                action = Action.RESULT_LATE if late else Action.RESULT_DUPLICATE
                features = opened.features(move.attempt)
                if features is None:
                    return []
                return [note_move(move.tenant_id, move.decision_id, action, features, attempt=move.attempt)]
            case MoveFault(message):
                self._telemetry.store_row_faults.inc()
                log.error(message, extra={"event": Event.STORE_ROW_FAULT, "tenant_id": move.tenant_id})
                opened.fault = message
                return []

    def _refused(self, refusal: Refusal) -> None:
        self._telemetry.results_refused.labels(refusal.value).inc()

    def _violation(self, named: str, owner: str | None) -> None:
        report_violation(self._isolation, Door.RESULT, named, owner)
