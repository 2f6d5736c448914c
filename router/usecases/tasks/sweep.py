"""The sweeper: work that is due or was left behind by a pod that died.

    NEW, not published in time             publish the assignment again
    NEW, deadline missed                   end the task: it is unknown whether its stream has the assignment
    deadline missed                        time the attempt out
    deadline lies too far ahead            wait for the task's own deadline from now on, then time the attempt out
    WAITING, backoff over                  start the next attempt
    ended, final result not confirmed      publish the final result
    ended, nothing left to do              remove the task from the due list
    usage in the outbox                    see `usecases.tasks.outbox`

Every pod sweeps. A claim hides due tasks from the other pods for `CLAIM_MS`. Two pods with the same task do no harm:
every step is a move that the store applies at most once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import assert_never

from msgspec.structs import replace

from router.domain.ids import task_id
from router.domain.policy.model import TenantPolicies
from router.domain.tasks.attempts import why_status
from router.domain.tasks.result import BreakerVerdict, ExecResult, ResultStatus
from router.domain.tasks.task import (
    Action,
    Dispatched,
    Move,
    Moved,
    MoveFault,
    NotMoved,
    TaskRecord,
    TaskState,
    Unreadable,
)
from router.errors import StoreError
from router.ports.policies import PolicyLookup
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of
from router.usecases.policies.lookups import policies_of
from router.usecases.tasks.attempts import Attempts
from router.usecases.tasks.dispatch import Dispatcher
from router.usecases.tasks.moves import ending_move, next_attempt_wait_ms, waiting_move
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.task_effects import TaskEffects
from router.usecases.tasks.unfinished import Unfinished

log = logging.getLogger("router.sweep")

CLAIM_MS = 5_000
PUBLISH_MS = 30_000
GRACE_MS = 2_000
"""How long after the deadline of a NEW task the pod that published it may still report the outcome of the publish."""
MAXIMUM = 256
_NOT_CONFIRMED = "no stream confirmed the assignment before its deadline: a worker may have received it"
OUTBOX_EVERY = 4
"""Polls of the due list per poll of the outbox."""


class _Due:
    """The due tasks of one poll, by what they need. `early`: their pods may still say how the publish went."""

    def __init__(self) -> None:
        self.gone: list[bytes] = []
        self.ended: list[bytes] = []
        self.early: list[bytes] = []
        self.expired: list[TaskRecord] = []
        self.set_back: list[TaskRecord] = []


class Sweeper:
    """Polls the due list every `every_s` seconds, at most `MAXIMUM` tasks per poll; after a full poll at once again.

    `on_timed_out` is called for each attempt whose deadline has passed.
    """

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
        self.on_timed_out: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Poll forever; cancel to stop. While the store is unavailable, polls fail and are repeated."""
        polls = 0
        while True:
            swept = 0
            # Without NATS, a claim would only hide the tasks from pods that are connected.
            if self._may_work():
                try:
                    swept = await self.poll()
                    polls += 1
                    if polls % OUTBOX_EVERY == 0:
                        await self._outbox.poll()
                except StoreError as fault:
                    log.debug("sweeper waits for the store: %s", fault)
            if swept < MAXIMUM:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._every_s):
                        await self._wake.wait()

    def soon(self, delay_ms: int) -> None:
        """Poll in `delay_ms`, when something is due; does nothing if the next regular poll is sooner."""
        if delay_ms < self._every_s * 1000:
            asyncio.get_running_loop().call_later(max(0, delay_ms) / 1000, self._wake.set)

    async def poll(self) -> int:
        """Claim the due tasks and do what each needs; return the number of claimed tasks.

        :raises StoreError: Redis did not answer.
        """
        claimed = await self._tasks.claim(CLAIM_MS, maximum=MAXIMUM)
        if not claimed.task_ids:
            return 0
        # Work items before records: when a task ends, its final result takes over the work item's key.
        jobs = await self._tasks.jobs(claimed.task_ids)
        records = await self._tasks.records(claimed.task_ids)
        due = _Due()
        for task, record, job in zip(claimed.task_ids, records, jobs, strict=True):
            if isinstance(record, Unreadable):
                # The task stays due: a newer pod may be able to read its record.
                log.error("record of a due task cannot be read: %s", record.message, extra={"event": Event.BUG})
            elif record is None:
                due.gone.append(task)
            elif record.state.final:
                due.ended.append(task)
            else:
                await self._unended(record, job, claimed.now_ms, due, set_back=task in claimed.set_back)
        if due.ended:
            due.gone += await self._publish_final(due.ended, claimed.now_ms)
        if due.gone:
            await self._tasks.forget_due(due.gone)
        if due.early:
            await self._tasks.postpone(due.early, claimed.now_ms + GRACE_MS)
        for record in due.set_back:
            await self._tasks.postpone([task_id(record.decision_id)], claimed.now_ms + record.facts.attempt_ms)
        if due.expired:
            await self._time_out(due.expired)
        return len(claimed.task_ids)

    async def _unended(self, record: TaskRecord, job: bytes | None, now_ms: int, due: _Due, *, set_back: bool) -> None:
        """Continue a task that has not ended, or sort it by what its missed deadline needs.

        A task that a worker may have, and whose deadline lies further ahead than it ever was: Redis' clock was set
        back. It is postponed by its own deadline once (`set_back`), and has missed it when it is due again.
        """
        with_worker = record.state in {TaskState.PUBLISHED, TaskState.ACCEPTED}
        if record.unfinished and not await self._unfinished.may_publish(record):
            log.debug("task not published: its decision waits for post extensions, or is undone")
        elif with_worker and set_back:
            due.set_back.append(record)
        elif with_worker and record.deadline_at_ms - now_ms > record.facts.attempt_ms + GRACE_MS:
            due.expired.append(record)
        elif record.state is TaskState.WAITING or now_ms < record.deadline_at_ms:
            await self._go_on(record, job)
        elif record.state is TaskState.NEW and now_ms < record.deadline_at_ms + GRACE_MS:
            due.early.append(task_id(record.decision_id))
        else:
            due.expired.append(record)

    async def _go_on(self, record: TaskRecord, job: bytes | None) -> None:
        try:
            if record.state is TaskState.WAITING:
                await self._attempts.begin(record, job)
            elif record.state is TaskState.NEW and job is not None:
                self._dispatcher.republish(record, job)
        except StoreError:
            raise
        except Exception:  # a task that hits a bug must not stop the sweeper; it is due again, and logged again
            log.exception(
                "due task could not be handled",
                extra={"event": Event.BUG, "tenant_id": record.facts.tenant_id, "request_id": record.facts.request_id},
            )

    async def _publish_final(self, ended: list[bytes], now_ms: int) -> list[bytes]:
        """Publish final results that were never confirmed; return the tasks without one."""
        without: list[bytes] = []
        published: list[bytes] = []
        for task, final in zip(ended, await self._tasks.final_results(ended), strict=True):
            if final is None:
                without.append(task)
                continue
            published.append(task)
            if isinstance(final, Unreadable):
                log.error("final result cannot be read: %s", final.message, extra={"event": Event.BUG})
            else:
                self._effects.publish_leftover(task, final)
        if published:
            # A publish may take longer than the claim: this keeps other pods from publishing the same result.
            await self._tasks.postpone(published, now_ms + PUBLISH_MS)
        return without

    async def _time_out(self, expired: list[TaskRecord]) -> None:
        moves = [await self._timeout_move(record) for record in expired]
        for record, move, outcome in zip(expired, moves, await self._tasks.move(moves), strict=True):
            match outcome:
                case Moved():
                    self._telemetry.assignments_timed_out.inc()
                    self.on_timed_out()
                    self._effects.breaker_turned(outcome.turn, record.facts.tenant_id, provider_id=record.provider_id)
                    self._effects.moved(move)
                    if not move.state.final:
                        self.soon(move.due_ms - self._now_ms(record.facts.tenant_id))
                case MoveFault():
                    # The task stays due until an operator repairs the key that the message names.
                    self._telemetry.store_row_faults.inc()
                    fields = {"event": Event.STORE_ROW_FAULT, "tenant_id": record.facts.tenant_id}
                    log.error("missed deadline could not be written: %s", outcome.message, extra=fields)
                case NotMoved():
                    pass  # a result or another pod was faster
                case _:
                    assert_never(outcome)

    async def _timeout_move(self, record: TaskRecord) -> Move:
        policies = await policies_of(self._policies, record.facts.tenant_id)
        action = Action.ASSIGNMENT_TIMED_OUT
        if record.state is TaskState.NEW:
            return self._open_end(record, policies)
        features = features_of(record, record.attempt, status=ResultStatus.TIMEOUT.value)
        verdict = BreakerVerdict.NEITHER if record.why == Dispatched.LATE else BreakerVerdict.FAILURE
        why = why_status(ResultStatus.TIMEOUT)
        wait_ms = await next_attempt_wait_ms(self._tasks, policies, record, why)
        if wait_ms is not None:
            due_ms = self._now_ms(record.facts.tenant_id) + wait_ms
            return waiting_move(record, policies, action, features, why=why, due_ms=due_ms, verdict=verdict)
        return ending_move(
            record,
            policies,
            action,
            features,
            state=TaskState.TIMED_OUT,
            keep_ms=self._effects.tombstone_ms,
            verdict=verdict,
            final=self._effects.final(record, ExecResult(ResultStatus.TIMEOUT, error_code="DEADLINE_EXCEEDED")),
        )

    def _open_end(self, record: TaskRecord, policies: TenantPolicies | None) -> Move:
        """The end of an attempt that is not known to be stored: it teaches the breaker nothing.

        A next attempt could do the work twice. A result of this one is settled as long as the task is remembered.
        """
        result = ExecResult(ResultStatus.TIMEOUT, error_code="DEADLINE_EXCEEDED", error_message=_NOT_CONFIRMED)
        move = ending_move(
            record,
            policies,
            Action.ASSIGNMENT_TIMED_OUT,
            features_of(record, record.attempt, status=ResultStatus.TIMEOUT.value, note=_NOT_CONFIRMED),
            state=TaskState.TIMED_OUT,
            keep_ms=self._effects.tombstone_ms,
            final=self._effects.final(record, result),
        )
        return replace(move, before_state=TaskState.PUBLISHED, why=Dispatched.OPEN)
