"""Results: what workers report, settled once.

    result → its task's record (or the remembered decision) → one move: state, breaker, reservations, leases, audit,
    usage in the outbox, what the caller is to be told → both published → cleared after the stream has them

The first result of an attempt wins. A repeat changes nothing, one of a superseded attempt or an ended task is late, one
that names another tenant's task is a violation: all are counted and audited with the task's own tenant.
"""

import logging
from collections.abc import Callable, Sequence

from router.domain.alert import Door
from router.domain.decision import Code, Refused
from router.domain.ids import task_id, task_of
from router.domain.result import Status
from router.domain.task import Action, Move, Moved, MoveFault, MoveOutcome, NotMoved, TaskState, Unreadable
from router.ports.bus import Delivery
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.ports.tasks import DeliveryFailures, TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.messages.deliveries import VIOLATION, DeadLetters, FailureBudget, again, violation
from router.usecases.messages.isolation import Isolation
from router.usecases.tasks.moves import note
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.result_moves import OpenResult, Refusal, ResultMoves, name_of, redriven_by
from router.usecases.tasks.task_effects import TaskEffects
from router.wire.problems import Rejected
from router.wire.results import decode_result
from router.wire.subjects import RESULT

log = logging.getLogger("router.settle")

# Times the tries of a result whose task's record cannot be read: over a minute as a rule, for newer pods to come by.
PATIENCE = 4


class Settle:
    """Settles batches of results. `max_failures`: how often a result may fail for good before it is a dead letter."""

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
        self._isolation = isolation
        self._faults = FailureBudget(failures, f"{RESULT} fault", max_failures)
        self._unreadable = FailureBudget(failures, f"{RESULT} unreadable", PATIENCE * max_failures)
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
        """Settle a batch of results; each delivery is acked, given up on, or comes again.

        :raises StoreError: Redis did not do it; what is not answered yet may be handed over again.
        """
        opened = self._opened(batch)
        await self._find(opened)
        moves: list[Move] = []
        owners: list[OpenResult | None] = []
        for one in opened:
            move = await self._moves.of(one)
            if move is not None:
                moves.append(move)
                owners.append(one if one.move is not None else None)
        outcomes = await self._tasks.move(moves) if moves else []
        late: list[Move] = []
        for owner, outcome in zip(owners, outcomes, strict=True):
            if owner is not None:
                late += self._told(owner, outcome)
        if late:
            await self._tasks.move(late)
        for one in opened:
            if not one.failed:
                self._answer(one)
        for one in opened:
            if one.failed:
                await self._failed(one)

    def _opened(self, batch: Sequence[Delivery]) -> list[OpenResult]:
        """Those that can be read; the others are given up on."""
        opened: list[OpenResult] = []
        for delivery in batch:
            headers = delivery.headers
            redriven = redriven_by(headers)
            if redriven is not None:
                self._telemetry.redriven.labels("result").inc()
            decoded = decode_result(delivery.data, headers)
            if isinstance(decoded, Rejected):
                if decoded.refused.code is Code.UNAUTHORIZED:
                    self._isolation.violated(Door.RESULT)
                self._dead_letters.give_up(RESULT, delivery, decoded.refused, trace_id=decoded.trace_id)
            else:
                opened.append(OpenResult(delivery, decoded, redriven))
        return opened

    def _answer(self, one: OpenResult) -> None:
        """Ack it, or give up on what is of somebody else."""
        trace_id = one.result.correlation.trace_id
        if one.foreign:
            owner = None if one.record is None else one.record.facts.tenant_id
            self._dead_letters.give_up(RESULT, one.delivery, VIOLATION, tenant_id=owner, trace_id=trace_id)
        else:
            one.delivery.ack()

    async def _failed(self, one: OpenResult) -> None:
        """Keep it for later, or give up on it."""
        if one.unreadable:
            # During a roll a newer pod may read the record; a damaged one nobody, and the result is kept for people.
            log.error("what a result is of cannot be read: %s", one.unreadable, extra={"event": Event.RESULT_REFUSED})
            budget, refusal = self._unreadable, Refusal.UNREADABLE
            why = "the record of its task or decision cannot be read"
        else:
            budget, refusal = self._faults, Refusal.FAULT
            why = f"it could not be settled: {one.fault}"
        if not await budget.ends(one.delivery):
            again(one.delivery)
            return
        self._refused(refusal)
        tenant_id = None if one.record is None else one.record.facts.tenant_id
        trace_id = one.result.correlation.trace_id
        self._dead_letters.give_up(
            RESULT, one.delivery, Refused(Code.INTERNAL, why), tenant_id=tenant_id, trace_id=trace_id
        )

    async def _find(self, opened: list[OpenResult]) -> None:
        """Read what the results are of: remembered decisions, then records of tasks; a round trip each.

        An id that names neither, under its tenant, costs one more: it may be another tenant's.
        """
        of_tasks = [(o, task_of(o.result.assignment_id)) for o in opened if o.result.assignment_id is not None]
        wanted: list[tuple[OpenResult, tuple[str, bytes]]] = []
        for one in opened:
            r = one.result
            if r.assignment_id is None and r.tenant_id is not None and (name := name_of(r)) is not None:
                wanted.append((one, (r.tenant_id, name)))
        answers = await self._decisions.all_remembered([names for _, names in wanted]) if wanted else []
        for (one, _), kept in zip(wanted, answers, strict=True):
            if isinstance(kept, Unreadable):
                one.found(kept)
            elif kept is not None and one.result.decision_id in (None, kept.decision_id):
                one.kept = kept
                if kept.pushed:
                    # It was dispatched: its record is what counts.
                    of_tasks.append((one, task_id(kept.decision_id)))
            elif kept is None and one.result.decision_id is not None:
                # Perhaps another tenant's, and a record says whose.
                of_tasks.append((one, task_id(one.result.decision_id)))
        records = await self._tasks.records([task for _, task in of_tasks]) if of_tasks else []
        for (one, _), record in zip(of_tasks, records, strict=True):
            one.found(record)
        for one, _ in wanted:
            decision_id = one.result.decision_id
            if decision_id is not None and one.record is None and one.kept is None and not one.unreadable:
                one.foreign = await self._decisions.exists_for_any_tenant(decision_id)

    def _told(self, one: OpenResult, outcome: MoveOutcome) -> list[Move]:
        """Count what a move came to and go on from there; returns notes for the audit."""
        move, result = one.move, one.result
        if move is None:
            return []
        match outcome:
            case Moved(turn):
                self._telemetry.results_settled.labels(result.status.value).inc()
                self._effects.turned(turn, move.tenant_id, one.provider_id)
                if one.usage:
                    self._telemetry.usage_settled.inc()
                    usage_id = move.decision_id if move.task_id is None else move.task_id
                    self._outbox.publish(usage_id, one.usage)
                if one.record is not None and not move.state.final:
                    self._effects.next_due(move.due_ms - self._decisions.now_ms(move.tenant_id))
                self._effects.ended(move)
                return []
            case NotMoved(state, _):
                late = state is TaskState.TIMED_OUT and result.status is not Status.TIMEOUT
                self._refused(Refusal.LATE if late else Refusal.DUPLICATE)
                action = Action.RESULT_LATE if late else Action.RESULT_DUPLICATE
                features = one.features(move.attempt)
                if features is None:
                    return []
                return [note(move.tenant_id, move.decision_id, action, features, attempt=move.attempt)]
            case MoveFault(message):
                self._telemetry.store_row_faults.inc()
                log.error(message, extra={"event": Event.STORE_ROW_FAULT, "tenant_id": move.tenant_id})
                one.fault = message
                return []

    def _refused(self, refusal: Refusal) -> None:
        self._telemetry.results_refused.labels(refusal.value).inc()

    def _violation(self, named: str, owner: str | None) -> None:
        violation(self._isolation, Door.RESULT, named, owner)
