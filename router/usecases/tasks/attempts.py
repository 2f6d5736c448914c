"""Start of the next attempt after a failed one, within the task's budget, or the end of the task.

    attempt failed → task WAITING, due after the backoff → any pod: plan by the fallback rules, then one store call
    (breaker, concurrency, record) → published like every attempt

The move to WAITING is written first, so a pod that dies afterwards leaves a task that is due.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import assert_never

from router.domain.audit.identity import PLAINLY, AuditIdentity
from router.domain.decide.figures import NO_FIGURES, Snapshot
from router.domain.decide.outcome import (
    Admitted,
    Busy,
    Conflict,
    LimitHit,
    NoCandidate,
    Outcome,
    Replay,
    RowFault,
    TenantOff,
    Unavailable,
)
from router.domain.decide.plan import Deadlines, Plan
from router.domain.decide.request import DecideRequest
from router.domain.gate import Features
from router.domain.tasks.attempts import next_plan
from router.domain.tasks.task import TaskRecord
from router.errors import StoreError
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.usecases.policies.lookups import policies_of
from router.usecases.tasks.dispatch import Dispatcher
from router.wire.worker.job import request_of

log = logging.getLogger("router.attempts")


GiveUp = Callable[[TaskRecord, str], Awaitable[None]]
"""Ends a task for which no next attempt is possible; may raise `StoreError`, and the task is due again."""


class Attempts:
    """Starts next attempts of waiting tasks."""

    def __init__(
        self,
        decisions: DecisionStore,
        policies: PolicyLookup,
        dispatcher: Dispatcher,
        features: Callable[[], Features],
        deadlines: Deadlines,
        give_up: GiveUp,
        snapshot: Callable[[str], Snapshot] = lambda _: NO_FIGURES,
        identity: AuditIdentity = PLAINLY,
    ) -> None:
        self._decisions = decisions
        self._policies = policies
        self._dispatcher = dispatcher
        self._features = features
        self._deadlines = deadlines
        self._give_up = give_up
        self._ending: set[asyncio.Task[None]] = set()
        self._snapshot = snapshot
        self._hide = identity.hide

    async def begin(self, record: TaskRecord, job: bytes | None) -> None:
        """Start the attempt that is due for a waiting task. If the store does not answer, the task is due again.

        A task whose work item or policy is lost is ended.

        :raises StoreError: the tenant's policies could not be read.
        """
        facts = record.facts
        policies = await policies_of(self._policies, facts.tenant_id)
        stored = None if policies is None else policies.policies.get(facts.policy_id)
        if job is None or stored is None:
            await self._give_up(record, "WORK_ITEM_LOST" if job is None else "POLICY_DELETED")
            return
        try:
            request = self._hide(request_of(job))
        except ValueError as fault:
            log.error("work item cannot be read, its task ends: %s", fault)
            await self._give_up(record, "WORK_ITEM_UNREADABLE")
            return
        plan = next_plan(
            request=request,
            stored=stored,
            record=record,
            features=self._features(),
            deadlines=self._deadlines,
            snapshot=self._snapshot(facts.tenant_id),
        )
        self._decisions.next_attempt(
            request, plan, record, job, done=partial(self._decided, request, plan, record, job)
        )

    def _decided(
        self, request: DecideRequest, plan: Plan, record: TaskRecord, job: bytes, outcome: Outcome, _stamp: bytes
    ) -> None:
        match outcome:
            case Admitted():
                self._dispatcher.next_attempt(request=request, plan=plan, record=record, outcome=outcome, job=job)
            case Conflict() | Unavailable():
                # Another pod has started it, or the claim expires and the task is due again.
                log.debug("next attempt not started by this pod: %s", type(outcome).__name__)
            case NoCandidate() | LimitHit() | TenantOff() | RowFault() | Replay() | Busy():
                ending = asyncio.get_running_loop().create_task(self._end(record))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            case _:
                assert_never(outcome)

    async def _end(self, record: TaskRecord) -> None:
        try:
            await self._give_up(record, "ALL_PROVIDERS_FAILED")
        except StoreError as fault:
            log.warning("task could not be ended, it is due again: %s", fault)
