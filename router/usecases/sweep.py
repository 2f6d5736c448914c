"""What is due: tasks whose pod died before the publish, attempts whose deadline has passed, usage that was left behind.

Any pod does it. A claim keeps the others away for a short while, and every step is a move that happens once, so two
pods at the same task do no harm.
"""

import asyncio
import logging
from collections.abc import Callable

from router.domain.ids import task_id
from router.domain.result import BreakerVerdict, ExecResult, Status
from router.domain.task import Action, Move, Moved, TaskRecord, TaskState
from router.errors import StoreError
from router.ports import TaskStore
from router.telemetry import Telemetry
from router.usecases.dispatch import Dispatcher
from router.usecases.outbox import Outbox
from router.usecases.settle import Settle
from router.usecases.tasks import (
    STATUS_CODES,
    Policies,
    breaker_of,
    features_of,
    pack_features,
    policies_of,
    split_reservations,
)

log = logging.getLogger("router.sweep")

CLAIM_MS = 5_000
MOST = 256
OUTBOX_EVERY = 4


class Sweeper:
    """Looks every `every_s` seconds; a look takes at most `MOST` tasks, and the next follows at once when it did."""

    def __init__(
        self,
        tasks: TaskStore,
        dispatcher: Dispatcher,
        settle: Settle,
        outbox: Outbox,
        policies: Policies,
        telemetry: Telemetry,
        *,
        tombstone_ms: int,
        may_work: Callable[[], bool],
        every_s: float = 0.5,
    ) -> None:
        self._tasks = tasks
        self._dispatcher = dispatcher
        self._settle = settle
        self._outbox = outbox
        self._policies = policies
        self._telemetry = telemetry
        self._tombstone_ms = tombstone_ms
        self._may_work = may_work
        self._every_s = every_s

    async def run(self) -> None:
        """Look for ever; cancel to stop. A store that is away is waited for."""
        looks = 0
        while True:
            more = 0
            # Without NATS a claim would only keep the tasks from pods that have it.
            if self._may_work():
                try:
                    more = await self.look()
                    looks += 1
                    if looks % OUTBOX_EVERY == 0:
                        await self._outbox.look()
                except StoreError as fault:
                    log.debug("the sweeper waits for the store: %s", fault)
            await asyncio.sleep(0 if more >= MOST else self._every_s)

    async def look(self) -> int:
        """Take what is due and move it on; returns how many tasks that were.

        :raises StoreError: Redis did not answer.
        """
        claimed = await self._tasks.claim(CLAIM_MS, MOST)
        if not claimed.task_ids:
            return 0
        records = await self._tasks.records(claimed.task_ids)
        jobs = await self._tasks.jobs(claimed.task_ids)
        gone: list[bytes] = []
        expired: list[TaskRecord] = []
        for task, record, job in zip(claimed.task_ids, records, jobs, strict=True):
            if record is None or record.state.final:
                gone.append(task)
            elif record.deadline_at_ms <= claimed.now_ms:
                expired.append(record)
            elif record.state is TaskState.NEW and job is not None:
                self._dispatcher.again(record, job)
        if gone:
            await self._tasks.forget_due(gone)
        if expired:
            await self._time_out(expired)
        return len(claimed.task_ids)

    async def _time_out(self, expired: list[TaskRecord]) -> None:
        moves = [await self._timeout_of(record) for record in expired]
        for record, outcome in zip(expired, await self._tasks.move(moves), strict=True):
            if isinstance(outcome, Moved):
                self._telemetry.assignments_timed_out.inc()
                self._settle.turned(outcome.turn, record.facts.tenant_id, record.provider_id)
                self._settle.tell_caller(record, ExecResult(Status.TIMEOUT, error_code="DEADLINE_EXCEEDED"))

    async def _timeout_of(self, record: TaskRecord) -> Move:
        facts = record.facts
        policies = await policies_of(self._policies, facts.tenant_id)
        _, leases = split_reservations(facts.reserved, record.provider_id, record.expected_cost_microusd, None)
        return Move(
            facts.tenant_id,
            record.decision_id,
            Action.ASSIGNMENT_TIMED_OUT,
            pack_features(features_of(record, record.attempt, status=Status.TIMEOUT.value)),
            STATUS_CODES[Status.TIMEOUT.value],
            task_id(record.decision_id),
            record.attempt,
            state=TaskState.TIMED_OUT,
            keep_ms=self._tombstone_ms,
            verdict=BreakerVerdict.FAILURE,
            breaker=breaker_of(policies, facts.policy_id),
            provider_entry=record.provider_entry,
            leases=leases,
        )
