"""Ends tasks whose attempt no stream has stored: refused by the server, or never sent.

Nothing was done, so it counts as no failure: the breaker learns nothing, leases and reservations go back, and the
caller gets `DISPATCH_FAILED` with the server's words. If a worker reports a result all the same (a stream refuses what
a plain subscriber receives), it is settled, once. A later attempt keeps the reservations: an earlier one may have used
them.
"""

import asyncio
import logging

from msgspec.structs import replace

from router.domain.tasks.result import ExecResult, ResultStatus
from router.domain.tasks.task import Action, Dispatched, Move, Moved, MoveFault, TaskRecord, TaskState
from router.errors import StoreError
from router.ports.policies import PolicyLookup
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of
from router.usecases.policies.lookups import policies_of
from router.usecases.tasks.moves import NOTHING_USED, ending_move, split_reservations
from router.usecases.tasks.task_effects import TaskEffects

log = logging.getLogger("router.dispatch")

ERROR_CODE = "DISPATCH_FAILED"


class Undispatched:
    """Ends such tasks; those that wait share one store call. What fails is left to the sweeper."""

    def __init__(self, tasks: TaskStore, policies: PolicyLookup, effects: TaskEffects, telemetry: Telemetry) -> None:
        self._tasks = tasks
        self._policies = policies
        self._effects = effects
        self._telemetry = telemetry
        self._waiting: list[tuple[bytes, int, str]] = []
        self._ending: asyncio.Task[None] | None = None

    def end(self, task: bytes, attempt: int, why: str) -> None:
        """End the task if it is still at this attempt and NEW. `why`: the server's words. Never raises."""
        self._waiting.append((task, attempt, why))
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end_all())

    async def drained(self) -> None:
        """Wait until the tasks have ended, or are left to the sweeper."""
        if self._ending is not None:
            await asyncio.wait([self._ending])

    async def _end_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                try:
                    await self._end(waiting)
                except StoreError as fault:
                    log.warning("undispatched tasks could not be ended, the sweeper retries: %s", fault)
        finally:
            self._ending = None

    async def _end(self, waiting: list[tuple[bytes, int, str]]) -> None:
        records = await self._tasks.records([task for task, _, _ in waiting])
        moves: list[Move] = []
        for record, (_, attempt, why) in zip(records, waiting, strict=True):
            if isinstance(record, TaskRecord) and record.state is TaskState.NEW and record.attempt == attempt:
                moves.append(await self._move(record, why))
        if not moves:
            return
        for move, outcome in zip(moves, await self._tasks.move(moves), strict=True):
            if isinstance(outcome, Moved):
                self._telemetry.assignments_undispatched.inc()
                self._effects.moved(move)
            elif isinstance(outcome, MoveFault):
                self._telemetry.store_row_faults.inc()
                fields = {"event": Event.STORE_ROW_FAULT, "tenant_id": move.tenant_id}
                log.error("undispatched task could not be ended: %s", outcome.message, extra=fields)

    async def _move(self, record: TaskRecord, why: str) -> Move:
        facts = record.facts
        result = ExecResult(ResultStatus.ERROR, error_code=ERROR_CODE, error_message=why)
        move = ending_move(
            record,
            await policies_of(self._policies, facts.tenant_id),
            Action.RESULT_SETTLED,
            features_of(record, record.attempt, result, note=why),
            state=TaskState.FAILED,
            keep_ms=self._effects.tombstone_ms,
            final=self._effects.final(record, result),
        )
        corrections, _ = split_reservations(
            facts.reserved, record.provider_id, record.expected_cost_microusd, NOTHING_USED
        )
        return replace(
            move,
            before_state=TaskState.PUBLISHED,
            why=Dispatched.FAILED,
            corrections=corrections if record.attempt == 1 else (),
            charged_ms=record.charged_ms,
        )
