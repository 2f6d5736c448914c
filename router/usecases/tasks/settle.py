"""Settling of results: each result that a worker or caller reports takes effect once.

    result → its task's record (or the remembered decision) → one move: state, breaker, reservations, leases, audit,
    usage in the outbox, final result for the caller → usage and final result published → both deleted once stored

The first result of an attempt wins. This is also true after the task's end, if the task ended while it was unknown
whether a worker had the assignment. A repeat changes nothing. A result of a superseded attempt or an ended task is
late, and one that names another tenant's task is a violation. All are counted and audited under the task's own tenant.

**Why two trips.** A result does not name the keys that settling changes. The record that is read first names tenant,
policy and provider. The settling call compares the record again, so a change between the two trips settles nothing.

**Why a result is acknowledged last.** If a pod dies before, the stream delivers the result again, and it settles the
task or changes nothing. Usage and final result are in the store by then, so any pod publishes them.
"""

import logging
from collections.abc import Sequence

from router.domain.alert import Door
from router.domain.decide.decision import Code, Intake, Refused
from router.domain.defects import note_of
from router.domain.ids import to_text
from router.domain.json import JsonValue
from router.domain.tasks.result import ResultStatus
from router.domain.tasks.steps import MAX_STEPS
from router.domain.tasks.task import Action, Move, Moved, MoveFault, MoveOutcome, NotMoved, TaskState
from router.ports.bus import Delivery
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.ports.tasks import DeliveryFailures, TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.messages.deliveries import VIOLATION, DeadLetters, FailureBudget, report_violation, retry_later
from router.usecases.messages.input_defects import InputDefects
from router.usecases.messages.isolation_violations import IsolationViolations
from router.usecases.tasks.moves import note_move
from router.usecases.tasks.open_result import OpenResult, Refusal
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.result_lookup import ResultLookup
from router.usecases.tasks.result_moves import ResultMoves, redriven_note
from router.usecases.tasks.task_effects import TaskEffects
from router.wire.problems import Rejected
from router.wire.subjects import OF_TENANT, RESULT, RESULT_PROBE, tenant_bound
from router.wire.worker.results import decode_result

log = logging.getLogger("router.settle")

# Each round settles a decision of every request whose results wait for each other, so no result waits for more.
MAX_ROUNDS = MAX_STEPS + 2
AMBIGUOUS_STEP = "AMBIGUOUS_STEP"
"""Error code of the dead letter of a result that names a request of several decisions, and none of them."""
MAX_NAMED = 16
# Factor on `max_failures` for a result whose record is unreadable. The retries then usually last over a minute, so that
# a newer pod can take the result during a roll.
UNREADABLE_FACTOR = 4

_OPEN_SUBJECT = Refused(
    Code.UNAUTHORIZED,
    f"a result without an assignment_id must come on its tenant's subject: publish to {RESULT}{OF_TENANT}<tenant>",
    {"intake_error_code": Intake.TENANT_FORBIDDEN.value},
)


class ResultSettler:
    """Consumer of results. `max_failures`: number of lasting failures after which a result becomes a dead letter.

    `by_name`: whether a result that names its decision by tenant and id, without an assignment_id, may come on the open
    subject; on a tenant's subject it always may.
    """

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        policies: PolicyLookup,
        outbox: Outbox,
        dead_letters: DeadLetters,
        effects: TaskEffects,
        telemetry: Telemetry,
        isolation: IsolationViolations,
        failures: DeliveryFailures,
        *,
        max_failures: int,
        by_name: bool = True,
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._effects = effects
        self._telemetry = telemetry
        self._defects = InputDefects(telemetry, "result")
        self._isolation = isolation
        self._by_name = by_name
        self._faults = FailureBudget(failures, f"{RESULT} fault", max_failures)
        self._unreadable = FailureBudget(failures, f"{RESULT} unreadable", UNREADABLE_FACTOR * max_failures)
        self._lookup = ResultLookup(tasks, decisions)
        self._moves = ResultMoves(
            tasks,
            decisions,
            policies,
            tombstone_ms=effects.tombstone_ms,
            final=effects.final,
            refused=self._refused,
            violation=self._violation,
        )

    async def settle_batch(self, batch: Sequence[Delivery]) -> None:
        """Settle a batch of results; each delivery is acknowledged, dead-lettered or retried.

        :raises StoreError: Redis did not settle the batch; deliveries without an answer may be passed in again.
        """
        all_opened = self._open(batch)
        waiting = all_opened
        for _ in range(MAX_ROUNDS):
            if not waiting:
                break
            waiting = await self._settle(waiting)
        for opened in waiting:
            retry_later(opened.delivery)
        delayed = set(map(id, waiting))
        for opened in all_opened:
            if not opened.failed and id(opened) not in delayed:
                self._acknowledge(opened)
        for opened in all_opened:
            if opened.failed:
                await self._fail(opened)

    async def _settle(self, waiting: list[OpenResult]) -> list[OpenResult]:
        """Settle what can be settled at once. Returns the results that wait for another result of the same request."""
        again = await self._lookup.look_up(waiting)
        deferred = set(map(id, again))
        moves: list[Move] = []
        settling: list[OpenResult | None] = []
        for opened in waiting:
            move = None if id(opened) in deferred else await self._moves.move_for(opened)
            if move is not None:
                moves.append(move)
                settling.append(opened if opened.move is not None else None)
        outcomes = await self._tasks.move(moves) if moves else []
        notes: list[Move] = []
        for settled, outcome in zip(settling, outcomes, strict=True):
            if settled is None:
                continue
            if (settled.was_open and isinstance(outcome, NotMoved)) or _overtaken(settled, outcome):
                settled.forget()
                again.append(settled)
            else:
                notes += self._apply(settled, outcome)
        if notes:
            await self._tasks.move(notes, replicated=False)
        return again

    def _open(self, batch: Sequence[Delivery]) -> list[OpenResult]:
        """Decode a batch; results that cannot be decoded become dead letters."""
        opened: list[OpenResult] = []
        for delivery in batch:
            if delivery.subject == RESULT_PROBE:
                delivery.ack()
                continue
            headers = delivery.headers
            redriven = redriven_note(headers)
            if redriven is not None:
                self._telemetry.redriven.labels("result").inc()
            tenant = tenant_bound(delivery.subject, open_subject=RESULT)
            decoded = decode_result(delivery.data, headers, tenant)
            if isinstance(decoded, Rejected):
                if decoded.refused.code is Code.UNAUTHORIZED:
                    self._isolation.violated(Door.RESULT)
                self._dead_letters.refuse(RESULT, delivery, decoded.refused, trace_id=decoded.trace_id)
            elif decoded.assignment_id is None and tenant is None and not self._by_name:
                self._dead_letters.refuse(RESULT, delivery, _OPEN_SUBJECT, trace_id=decoded.correlation.trace_id)
            else:
                self._defects.count(decoded.warnings, decoded.tenant_id)
                opened.append(OpenResult(delivery, decoded, note_of(redriven, warnings=decoded.warnings)))
        return opened

    def _acknowledge(self, opened: OpenResult) -> None:
        """Acknowledge a handled result. A result for another tenant's task, or without a clear step, becomes a dead
        letter.
        """
        trace_id = opened.result.correlation.trace_id
        if opened.foreign:
            owner = None if opened.record is None else opened.record.facts.tenant_id
            self._dead_letters.refuse(RESULT, opened.delivery, VIOLATION, tenant_id=owner, trace_id=trace_id)
        elif opened.ambiguous is not None:
            decision_ids = [to_text(i) for i in opened.ambiguous.decision_ids]
            self._dead_letters.give_up(
                RESULT,
                opened.delivery,
                _ambiguous_step(decision_ids),
                tenant_id=opened.result.tenant_id,
                trace_id=trace_id,
                context={"decision_ids": list[JsonValue](decision_ids)},
            )
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

    def _apply(self, opened: OpenResult, outcome: MoveOutcome) -> list[Move]:
        """Count the outcome of a settling move and start its effects; return audit notes to write."""
        move, result = opened.move, opened.result
        if move is None:
            return []
        match outcome:
            case Moved(turn):
                self._telemetry.results_settled.labels(result.status.value).inc()
                self._effects.breaker_turned(turn, move.tenant_id, provider_id=opened.provider_id)
                if opened.usage:
                    self._telemetry.usage_settled.inc()
                    usage_id = move.decision_id if move.task_id is None else move.task_id
                    self._outbox.publish(usage_id, opened.usage)
                if opened.record is not None and not move.state.final:
                    self._effects.next_due(move.due_ms - self._decisions.now_ms(move.tenant_id))
                self._effects.moved(move)
                return []
            case NotMoved(state, _):
                late = state is TaskState.TIMED_OUT and result.status is not ResultStatus.TIMEOUT
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
        report_violation(self._isolation, Door.RESULT, named, owner=owner)


def _overtaken(opened: OpenResult, outcome: MoveOutcome) -> bool:
    """Whether the task may have ended as `Dispatched.OPEN` or `FAILED` since its record was read."""
    return (
        isinstance(outcome, NotMoved)
        and opened.record is not None
        and opened.record.state is TaskState.NEW
        and outcome.state in (TaskState.FAILED, TaskState.TIMED_OUT)
    )


def _ambiguous_step(decision_ids: list[str]) -> Refused:
    """The reason for the dead letter of a result that does not say which decision of its request it belongs to."""
    more = len(decision_ids) - MAX_NAMED
    named = ", ".join(decision_ids[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
    return Refused(
        Code.INVALID_REQUEST,
        f"it does not say which decision of its request it belongs to: send decision_id, one of {named}",
        {"intake_error_code": AMBIGUOUS_STEP},
    )
