"""What is due: unpublished tasks of a pod that died, missed deadlines, next attempts, final results that no caller was
told, usage that was left behind.

Any pod does it. A claim keeps the others away for a short while, and every step is a move that happens once, so two
pods at the same task do no harm.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from router.domain.attempts import why_status
from router.domain.result import BreakerVerdict, ExecResult, Status
from router.domain.task import Action, Move, Moved, MoveFault, TaskRecord, TaskState, Unreadable
from router.errors import StoreError
from router.ports.policies import PolicyLookup
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of
from router.usecases.policies.lookups import policies_of
from router.usecases.tasks.attempts import Attempts
from router.usecases.tasks.dispatch import Dispatcher
from router.usecases.tasks.moves import ending_move, next_of, waiting_move
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.task_effects import TaskEffects
from router.usecases.tasks.unfinished import Unfinished

log = logging.getLogger("router.sweep")

CLAIM_MS = 5_000
TELLING_MS = 30_000
MAXIMUM = 256
OUTBOX_EVERY = 4


class Sweeper:
    """Looks every `every_s` seconds; a look takes at most `MAXIMUM` tasks, and the next follows at once when it did."""

    def __init__(
        self,
        tasks: TaskStore,
        dispatcher: Dispatcher,
        effects: TaskEffects,
        outbox: Outbox,
        attempts: Attempts,
        unfinished: Unfinished,
        policies: PolicyLookup,
        telemetry: Telemetry,
        *,
        may_work: Callable[[], bool],
        now_ms: Callable[[str], int],
        every_s: float = 0.5,
    ) -> None:
        self._tasks = tasks
        self._dispatcher = dispatcher
        self._effects = effects
        self._outbox = outbox
        self._attempts = attempts
        self._unfinished = unfinished
        self._wake = asyncio.Event()
        self._policies = policies
        self._telemetry = telemetry
        self._may_work = may_work
        self._now_ms = now_ms
        self._every_s = every_s

    async def run(self) -> None:
        """Look for ever; cancel to stop. A store that is away is waited for."""
        looks = 0
        while True:
            more = 0
            # Without NATS a claim would only keep the tasks from pods that have it.
            if self._may_work():
                try:
                    more = await self.poll()
                    looks += 1
                    if looks % OUTBOX_EVERY == 0:
                        await self._outbox.poll()
                except StoreError as fault:
                    log.debug("the sweeper waits for the store: %s", fault)
            if more < MAXIMUM:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._every_s):
                        await self._wake.wait()

    def soon(self, delay_ms: int) -> None:
        """Something is due in so many ms: look then, when that is before the next look."""
        if delay_ms < self._every_s * 1000:
            asyncio.get_running_loop().call_later(max(0, delay_ms) / 1000, self._wake.set)

    async def poll(self) -> int:
        """Take what is due and move it on; returns how many tasks that were.

        :raises StoreError: Redis did not answer.
        """
        claimed = await self._tasks.claim(CLAIM_MS, MAXIMUM)
        if not claimed.task_ids:
            return 0
        # In this order: a task that ends in between has its final result in the place of its work item.
        jobs = await self._tasks.jobs(claimed.task_ids)
        records = await self._tasks.records(claimed.task_ids)
        gone: list[bytes] = []
        ended: list[bytes] = []
        expired: list[TaskRecord] = []
        for task, record, job in zip(claimed.task_ids, records, jobs, strict=True):
            if isinstance(record, Unreadable):
                # It stays due: a newer pod may read it.
                log.error("a due task's record cannot be read: %s", record.message, extra={"event": Event.BUG})
            elif record is None:
                gone.append(task)
            elif record.state.final:
                ended.append(task)
            elif record.unfinished and not await self._unfinished.may_publish(record):
                log.debug("a task waits for its decision's post extensions, or was taken back with it")
            elif record.state is not TaskState.WAITING and record.deadline_at_ms <= claimed.now_ms:
                expired.append(record)
            else:
                await self._go_on(record, job)
        if ended:
            gone += await self._tell(ended, claimed.now_ms)
        if gone:
            await self._tasks.forget_due(gone)
        if expired:
            await self._time_out(expired)
        return len(claimed.task_ids)

    async def _go_on(self, record: TaskRecord, job: bytes | None) -> None:
        try:
            if record.state is TaskState.WAITING:
                await self._attempts.begin(record, job)
            elif record.state is TaskState.NEW and job is not None:
                self._dispatcher.again(record, job)
        except StoreError:
            raise
        except Exception:  # one task that cannot be handled must not stop the fleet; it is due again, and logged again
            log.exception(
                "a due task could not be handled",
                extra={"event": Event.BUG, "tenant_id": record.facts.tenant_id, "request_id": record.facts.request_id},
            )

    async def _tell(self, ended: list[bytes], now_ms: int) -> list[bytes]:
        """Tell callers of whom nobody has confirmed that they were told; returns the tasks with nothing to tell."""
        nothing: list[bytes] = []
        told: list[bytes] = []
        for task, final in zip(ended, await self._tasks.final_results(ended), strict=True):
            if final is None:
                nothing.append(task)
                continue
            told.append(task)
            if isinstance(final, Unreadable):
                log.error("a final result cannot be read: %s", final.message, extra={"event": Event.BUG})
            else:
                self._effects.tell_again(task, final)
        if told:
            # A publish may take longer than a claim: no other pod need begin one meanwhile.
            await self._tasks.postpone(told, now_ms + TELLING_MS)
        return nothing

    async def _time_out(self, expired: list[TaskRecord]) -> None:
        moves = [await self._timeout_of(record) for record in expired]
        for record, move, outcome in zip(expired, moves, await self._tasks.move(moves), strict=True):
            if isinstance(outcome, Moved):
                self._telemetry.assignments_timed_out.inc()
                self._effects.turned(outcome.turn, record.facts.tenant_id, record.provider_id)
                self._effects.ended(move)
                if not move.state.final:
                    self.soon(move.due_ms - self._now_ms(record.facts.tenant_id))
            elif isinstance(outcome, MoveFault):
                # It is due again; somebody has to mend the key that the message names.
                self._telemetry.store_row_faults.inc()
                fields = {"event": Event.STORE_ROW_FAULT, "tenant_id": record.facts.tenant_id}
                log.error("a missed deadline could not be written: %s", outcome.message, extra=fields)

    async def _timeout_of(self, record: TaskRecord) -> Move:
        policies = await policies_of(self._policies, record.facts.tenant_id)
        features = features_of(record, record.attempt, status=Status.TIMEOUT.value)
        action, verdict = Action.ASSIGNMENT_TIMED_OUT, BreakerVerdict.FAILURE
        why = why_status(Status.TIMEOUT)
        wait = await next_of(self._tasks, policies, record, why)
        if wait is not None:
            due = self._now_ms(record.facts.tenant_id) + wait
            return waiting_move(record, policies, action, features, why=why, due_ms=due, verdict=verdict)
        return ending_move(
            record,
            policies,
            action,
            features,
            state=TaskState.TIMED_OUT,
            keep_ms=self._effects.tombstone_ms,
            verdict=verdict,
            final=self._effects.final(record, ExecResult(Status.TIMEOUT, error_code="DEADLINE_EXCEEDED")),
        )
