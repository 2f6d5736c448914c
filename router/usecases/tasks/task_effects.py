"""What others are told about moves: breakers that turned, callers whose task has ended, the sweeper of what is due."""

from collections.abc import Callable

from router.domain.alert import Condition
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.json import JsonObject
from router.domain.result import ExecResult, Status
from router.domain.task import Action, BreakerTurn, Final, Move, Moved, TaskRecord, TaskState
from router.ports.alerts import AlertSink
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.audit.features import features_of
from router.usecases.tasks.final_results import FinalResults
from router.usecases.tasks.moves import ending_move, origin_of
from router.wire.assignment import final_result

MAX_KEPT_BYTES = 64 * 1024
"""Of a final result in the store, as of the work item whose place it takes."""


class TaskEffects:
    """Tells. `tombstone_ms`: how long an ended task is remembered; `max_bytes`: of what can be published."""

    def __init__(
        self,
        tasks: TaskStore,
        final_results: FinalResults,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        tombstone_ms: int,
        max_bytes: Callable[[], int],
    ) -> None:
        self._tasks = tasks
        self._final_results = final_results
        self._telemetry = telemetry
        self._alerts = alerts
        self._max_bytes = max_bytes
        self.tombstone_ms = tombstone_ms
        # Told how many ms there are until a next attempt is due; the sweeper's, once there is one.
        self.next_due: Callable[[int], None] = _nobody

    def turned(self, turn: BreakerTurn, tenant_id: str, provider_id: str) -> None:
        """A breaker may have turned: counted, and an alert while it is open."""
        if turn is BreakerTurn.UNCHANGED:
            return
        self._telemetry.breaker_transitions.labels(turn.name.lower()).inc()
        scope = f"{tenant_id}/{provider_id}"
        metadata: JsonObject = {"tenant_id": tenant_id, "provider_id": provider_id}
        if turn is BreakerTurn.OPENED:
            self._alerts.raise_(Condition.BREAKER_OPENED, scope, metadata=metadata)
        elif turn is BreakerTurn.CLOSED:
            self._alerts.resolve(Condition.BREAKER_OPENED, scope, metadata=metadata)

    def final(self, record: TaskRecord, result: ExecResult) -> Final | None:
        """What a caller who asked for it is told when this ends the task. A large output is not kept, only told."""
        facts = record.facts
        if facts.result_subject is None:
            return None
        task = task_id(record.decision_id)
        body, spare = final_result(
            result,
            task_id=to_text(task),
            assignment_id=to_text(assignment_id(task, record.attempt)),
            attempt=record.attempt,
            provider_id=record.provider_id,
            origin=origin_of(facts),
            max_bytes=self._max_bytes(),
            max_kept=MAX_KEPT_BYTES,
        )
        return Final(facts.result_subject, body, spare)

    def ended(self, move: Move) -> None:
        """This move was made: its caller is told, if it has ended the task and the caller has asked for it."""
        if move.final is not None and move.task_id is not None:
            self._final_results.tell(move.task_id, move.final)

    def tell_again(self, task_id: bytes, final: Final) -> None:
        """Nobody has confirmed that this caller was told: whoever ended the task has died, or could not tell."""
        self._final_results.tell(task_id, final, "sweeper")

    async def give_up(self, record: TaskRecord, why: str) -> None:
        """End a task that waits for an attempt which no provider can take.

        :raises StoreError: Redis did not answer; the task is due again.
        """
        result = ExecResult(Status.ERROR, error_code=why)
        features = features_of(record, record.attempt, result)
        move = ending_move(
            record,
            None,
            Action.RESULT_SETTLED,
            features,
            state=TaskState.FAILED,
            keep_ms=self.tombstone_ms,
            final=self.final(record, result),
        )
        (outcome,) = await self._tasks.move([move])
        if isinstance(outcome, Moved):
            self.ended(move)


def _nobody(_delay_ms: int) -> None:
    """Before the sweeper is there: it looks by itself."""
