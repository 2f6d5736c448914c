"""Results: what workers report, settled once.

    result → its task's record (or the remembered decision) → one move: state, breaker, reservations, leases, audit,
    usage in the outbox → usage published → cleared after the stream has it

The first result of an attempt wins. A repeat changes nothing, one of a superseded attempt or an ended task is late, one
that names another tenant's task is a violation: all are counted and audited with the task's own tenant.
"""

import logging
from collections.abc import Callable, Sequence

from msgspec import Struct

from router.domain.alert import Condition
from router.domain.attempts import backoff_ms, has_next, why_of
from router.domain.audit import TaskFeatures
from router.domain.decision import Code, Refused
from router.domain.ids import assignment_id, attempt_in, idempotency_name, name_in, task_id, task_of, to_text
from router.domain.outcome import Remembered
from router.domain.policy import TenantPolicies, provider_entry
from router.domain.result import ExecResult, Status, breaker_verdict, taught
from router.domain.task import (
    Action,
    BreakerTurn,
    Move,
    Moved,
    MoveFault,
    MoveOutcome,
    NotMoved,
    TaskRecord,
    TaskState,
    Unreadable,
)
from router.errors import StoreError
from router.ports import DecisionStore, TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.deliveries import VIOLATION, DeadLetters, Delivery, again, violation
from router.usecases.gate import AlertSink
from router.usecases.outbox import Outbox
from router.usecases.tasks import (
    STATUS_CODES,
    CoreSend,
    Policies,
    breaker_of,
    ending_move,
    features_of,
    note,
    origin_of,
    pack_features,
    policies_of,
    policy_of,
    split_reservations,
    waiting_move,
)
from router.usecases.usage import usage_of_decision, usage_of_task
from router.wire.assignment import final_result
from router.wire.problems import Rejected
from router.wire.results import decode_result

log = logging.getLogger("router.settle")

RESULT_SUBJECT = "caf.exec.result.v1"
# Of a result whose task's record cannot be read: a minute and more, for other pods to come by.
MOST_TRIES = 20
_RETRIED = (Status.ERROR, Status.TIMEOUT)
_STATES = {
    Status.SUCCESS: TaskState.SUCCEEDED,
    Status.ERROR: TaskState.FAILED,
    Status.TIMEOUT: TaskState.TIMED_OUT,
    Status.CANCELLED: TaskState.CANCELLED,
}


class _Open(Struct):
    """A result that is being settled."""

    delivery: Delivery
    result: ExecResult
    record: TaskRecord | None = None
    kept: Remembered | None = None
    move: Move | None = None
    usage: bytes = b""
    foreign: bool = False
    unreadable: str = ""

    def found(self, record: TaskRecord | Unreadable | None) -> None:
        """What the store has of its task."""
        if isinstance(record, Unreadable):
            self.unreadable = record.message
        else:
            self.record = record


class Settle:
    """Settles batches of results. `tombstone_ms`: how long an ended task is remembered."""

    def __init__(
        self,
        tasks: TaskStore,
        decisions: DecisionStore,
        policies: Policies,
        outbox: Outbox,
        dead_letters: DeadLetters,
        core_send: CoreSend,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        tombstone_ms: int,
        wall_ms: Callable[[], int],
    ) -> None:
        self._tasks = tasks
        self._decisions = decisions
        self._policies = policies
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._core_send = core_send
        self._telemetry = telemetry
        self._alerts = alerts
        self._tombstone_ms = tombstone_ms
        # Told how many ms there are until a next attempt is due; the sweeper's, once there is one.
        self.next_due: Callable[[int], None] = _nobody
        self._wall_ms = wall_ms

    async def results(self, batch: Sequence[Delivery]) -> None:
        """Settle a batch of results; each delivery is acked, or comes again when the store is away."""
        opened: list[_Open] = []
        for delivery in batch:
            decoded = decode_result(delivery.data, delivery.headers)
            if isinstance(decoded, Rejected):
                self._dead_letters.give_up(RESULT_SUBJECT, delivery, decoded.refused, trace_id=decoded.trace_id)
            else:
                opened.append(_Open(delivery, decoded))
        try:
            await self._settle(opened)
        except StoreError as fault:
            log.warning("results wait for the store: %s", fault, extra={"event": Event.STORE_AWAY})
            for one in opened:
                again(one.delivery)

    async def _settle(self, opened: list[_Open]) -> None:
        await self._find(opened)
        moves: list[Move] = []
        owners: list[_Open | None] = []
        for one in opened:
            move = await self._move_of(one)
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
            if one.foreign and one.record is not None:
                tenant_id, trace_id = one.record.facts.tenant_id, one.result.correlation.trace_id
                self._dead_letters.give_up(
                    RESULT_SUBJECT, one.delivery, VIOLATION, tenant_id=tenant_id, trace_id=trace_id
                )
            elif one.unreadable:
                self._another_pod(one)
            else:
                one.delivery.ack()

    def _another_pod(self, one: _Open) -> None:
        """During a roll a newer pod may read the record; a damaged one nobody, and the result is kept for people."""
        log.error("a delivery record cannot be read: %s", one.unreadable, extra={"event": Event.RESULT_REFUSED})
        if one.delivery.delivered < MOST_TRIES:
            again(one.delivery)
            return
        self._refused("unreadable")
        refused = Refused(Code.INTERNAL, "the delivery record of its task cannot be read")
        trace_id = one.result.correlation.trace_id
        self._dead_letters.give_up(RESULT_SUBJECT, one.delivery, refused, trace_id=trace_id)

    async def _find(self, opened: list[_Open]) -> None:
        """Read the records that the results name, in one round trip, then the remembered decisions of the others."""
        named = [o for o in opened if o.result.assignment_id is not None]
        ids = [task_of(o.result.assignment_id or b"") for o in named]
        for one, record in zip(named, await self._tasks.records(ids), strict=True):
            one.found(record)
        for one in opened:
            r = one.result
            if r.assignment_id is None and r.tenant_id is not None and (name := _name_of(r)) is not None:
                kept = await self._decisions.remembered(r.tenant_id, name)
                if kept is not None and (r.decision_id is None or r.decision_id == kept.decision_id):
                    one.kept = kept
                    if kept.pushed:
                        # It was dispatched: its record is what counts.
                        one.found(*await self._tasks.records([task_id(kept.decision_id)]))

    async def _move_of(self, one: _Open) -> Move | None:
        """The move that settles this result (then `one.move` is it), or a note that it cannot be, or nothing."""
        result = one.result
        if one.unreadable:
            return None
        if one.record is not None:
            return await self._task_move(one, one.record)
        if one.kept is not None and result.tenant_id is not None:
            return await self._remembered_move(one, one.kept, result.tenant_id)
        self._refused("unknown")
        return None

    async def _task_move(self, one: _Open, record: TaskRecord) -> Move:
        result, facts = one.result, record.facts
        attempt = record.attempt if result.assignment_id is None else attempt_in(result.assignment_id)
        if result.tenant_id is not None and result.tenant_id != facts.tenant_id:
            one.foreign = True
            self._violation(result.tenant_id, facts.tenant_id)
            told = features_of(record, attempt, result, note=f"named tenant {result.tenant_id}")
            return note(facts.tenant_id, record.decision_id, Action.RESULT_VIOLATION, told, attempt=attempt)
        if attempt != record.attempt:
            self._refused("late")
            told = features_of(record, attempt, result)
            return note(facts.tenant_id, record.decision_id, Action.RESULT_LATE, told, attempt=attempt)
        policies = await policies_of(self._policies, facts.tenant_id)
        if result.status in _RETRIED and has_next(record):
            one.move = self._waiting_move(record, policies, result)
            return one.move
        corrections, leases = split_reservations(
            facts.reserved, record.provider_id, record.expected_cost_microusd, result
        )
        if result.status is Status.SUCCESS:
            now_ms = self._decisions.now_ms(facts.tenant_id)
            one.usage = usage_of_task(record, result, now_ms, self._wall_ms())
        one.move = Move(
            facts.tenant_id,
            record.decision_id,
            Action.RESULT_SETTLED,
            pack_features(features_of(record, attempt, result)),
            STATUS_CODES[result.status.value],
            task_id(record.decision_id),
            attempt,
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
        )
        return one.move

    def _waiting_move(self, record: TaskRecord, policies: TenantPolicies | None, result: ExecResult) -> Move:
        why = why_of(result)
        wait = backoff_ms(policy_of(policies, record.facts.policy_id), record, why)
        return waiting_move(
            record,
            policies,
            Action.RESULT_SETTLED,
            features_of(record, record.attempt, result, note="another attempt follows"),
            why=why,
            due_ms=self._decisions.now_ms(record.facts.tenant_id) + wait,
            verdict=breaker_verdict(result),
        )

    async def give_up(self, record: TaskRecord, why: str) -> None:
        """End a task that waits for an attempt which no provider can take.

        :raises StoreError: Redis did not answer; the task is due again.
        """
        result = ExecResult(Status.ERROR, error_code=why)
        features = features_of(record, record.attempt, result)
        move = ending_move(
            record, None, Action.RESULT_SETTLED, features, state=TaskState.FAILED, keep_ms=self._tombstone_ms
        )
        (outcome,) = await self._tasks.move([move])
        if isinstance(outcome, Moved):
            self.tell_caller(record, result)

    async def _remembered_move(self, one: _Open, kept: Remembered, tenant_id: str) -> Move:
        result = one.result
        policies = await policies_of(self._policies, tenant_id)
        corrections, leases = split_reservations(kept.reserved, kept.provider_id, kept.expected_cost_microusd, result)
        if result.status is Status.SUCCESS and kept.meter:
            one.usage = usage_of_decision(kept, result, tenant_id, self._wall_ms())
        one.move = Move(
            tenant_id,
            kept.decision_id,
            Action.RESULT_SETTLED,
            pack_features(_features_of_kept(kept, result)),
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

    def _told(self, one: _Open, outcome: MoveOutcome) -> list[Move]:
        """Count what a move came to and go on from there; returns notes for the audit."""
        move, result = one.move, one.result
        if move is None:
            return []
        match outcome:
            case Moved(turn):
                self._telemetry.results_settled.labels(result.status.value).inc()
                if turn is not BreakerTurn.UNCHANGED:
                    self.turned(turn, move.tenant_id, self._provider(one))
                if one.usage:
                    self._telemetry.usage_settled.inc()
                    usage_id = move.decision_id if move.task_id is None else move.task_id
                    self._outbox.publish(usage_id, one.usage)
                if one.record is not None and not move.state.final:
                    self.next_due(move.due_ms - self._decisions.now_ms(move.tenant_id))
                elif one.record is not None:
                    self.tell_caller(one.record, result)
                return []
            case NotMoved(state, _):
                late = state is TaskState.TIMED_OUT and result.status is not Status.TIMEOUT
                self._refused("late" if late else "duplicate")
                action = Action.RESULT_LATE if late else Action.RESULT_DUPLICATE
                features = (
                    features_of(one.record, move.attempt, result)
                    if one.record is not None
                    else _features_of_kept(one.kept, result)
                    if one.kept is not None
                    else None
                )
                if features is None:
                    return []
                return [note(move.tenant_id, move.decision_id, action, features, attempt=move.attempt)]
            case MoveFault(message):
                self._telemetry.store_row_faults.inc()
                log.error(message, extra={"event": Event.STORE_ROW_FAULT, "tenant_id": move.tenant_id})
                return []

    @staticmethod
    def _provider(one: _Open) -> str:
        if one.record is not None:
            return one.record.provider_id
        return "" if one.kept is None else one.kept.provider_id

    def turned(self, turn: BreakerTurn, tenant_id: str, provider_id: str) -> None:
        """A breaker has turned: counted, and an alert while it is open."""
        self._telemetry.breaker_transitions.labels(turn.name.lower()).inc()
        scope = f"{tenant_id}/{provider_id}"
        if turn is BreakerTurn.OPENED:
            self._alerts.raise_(
                Condition.BREAKER_OPENED, scope, metadata={"tenant_id": tenant_id, "provider_id": provider_id}
            )
        elif turn is BreakerTurn.CLOSED:
            self._alerts.resolve(Condition.BREAKER_OPENED, scope)

    def tell_caller(self, record: TaskRecord, result: ExecResult) -> None:
        """The final result, for a caller who asked for it."""
        facts = record.facts
        if facts.result_subject is None:
            return
        task = task_id(record.decision_id)
        body = final_result(
            result,
            task_id=to_text(task),
            assignment_id=to_text(assignment_id(task, record.attempt)),
            attempt=record.attempt,
            provider_id=record.provider_id,
            origin=origin_of(facts),
        )
        self._core_send(facts.result_subject, body)

    def _refused(self, reason: str) -> None:
        self._telemetry.results_refused.labels(reason).inc()

    def _violation(self, named: str, owner: str) -> None:
        self._refused("violation")
        violation(self._telemetry, self._alerts, named, owner)


def _nobody(_delay_ms: int) -> None:
    """Before the sweeper is there: it looks by itself."""


def _name_of(result: ExecResult) -> bytes | None:
    """The idempotency name under which an undispatched decision is remembered."""
    tenant_id = result.tenant_id
    if tenant_id is None:
        return None
    if result.decision_id is not None:
        return name_in(result.decision_id)
    if result.idempotency_key is not None:
        return idempotency_name(tenant_id, "key", result.idempotency_key)
    return None if result.request_id is None else idempotency_name(tenant_id, "request", result.request_id)


def _features_of_kept(kept: Remembered, result: ExecResult) -> TaskFeatures:
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
    )
