"""Effects of applied moves: breaker alerts, final results for callers, wake-ups of the sweeper."""

from collections.abc import Callable
from typing import assert_never

from router.domain.alert import Condition
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.json import JsonObject
from router.domain.tasks.result import ExecResult, ResultStatus
from router.domain.tasks.task import Action, BreakerTurn, Final, Move, Moved, TaskRecord, TaskState
from router.ports.alerts import AlertSink
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.audit.features import features_of
from router.usecases.tasks.final_results import FinalResults
from router.usecases.tasks.moves import ending_move, origin_of
from router.wire.assignment import final_result

MAX_KEPT_BYTES = 64 * 1024
"""Maximum size of a final result in the store; a work item, whose key it takes over, has the same bound."""


class TaskEffects:
    """Starts the effects of moves outside the store.

    `tombstone_ms`: how long the store remembers an ended task. `max_bytes`: maximum size of a published message.
    `next_due` is called with the milliseconds until a next attempt is due; the pod sets it to the sweeper's wake-up.
    """

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
        self.next_due: Callable[[int], None] = _no_wake_up

    def breaker_turned(self, turn: BreakerTurn, tenant_id: str, *, provider_id: str) -> None:
        """Count a breaker's change of state; raise its alert when it opens and resolve it when it closes."""
        if turn is BreakerTurn.UNCHANGED:
            return
        self._telemetry.breaker_transitions.labels(turn.name.lower()).inc()
        scope = f"{tenant_id}/{provider_id}"
        metadata: JsonObject = {"tenant_id": tenant_id, "provider_id": provider_id}
        match turn:
            case BreakerTurn.OPENED:
                self._alerts.raise_(Condition.BREAKER_OPENED, scope, metadata=metadata)
            case BreakerTurn.CLOSED:
                self._alerts.resolve(Condition.BREAKER_OPENED, scope, metadata=metadata)
            case BreakerTurn.HALF_OPENED:
                pass  # the alert stays open until the breaker closes
            case _:
                assert_never(turn)

    def final(self, record: TaskRecord, result: ExecResult) -> Final | None:
        """Build the final result that a caller asked for; None: the caller did not ask.

        An output too large for the store is published, but the stored copy leaves it out.
        """
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

    def moved(self, move: Move) -> None:
        """Publish the final result of an applied move, if the move ended a task whose caller asked for it."""
        if move.final is not None and move.task_id is not None:
            self._final_results.publish(move.task_id, move.final)

    def publish_leftover(self, task_id: bytes, final: Final) -> None:
        """Publish a stored final result whose publication was never confirmed: the pod died, or its publish failed."""
        self._final_results.publish(task_id, final, "sweeper")

    async def give_up(self, record: TaskRecord, why: str) -> None:
        """End a waiting task for which no next attempt is possible. `why` is the error code of its final result.

        :raises StoreError: Redis did not answer; the task is due again.
        """
        result = ExecResult(ResultStatus.ERROR, error_code=why)
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
            self.moved(move)


def _no_wake_up(_delay_ms: int) -> None:
    """Do nothing: without a wake-up the sweeper still polls at its interval."""
