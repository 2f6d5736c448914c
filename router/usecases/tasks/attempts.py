"""What follows a failed attempt: the next one, within the task's one budget, or the task's end.

    failed attempt → moved to WAITING, due after the backoff → any pod: plan by the fallback rules, one store call
    (breaker, concurrency, record) → published as every attempt

The move is written before anything else happens, so a pod that dies in between leaves a task that is due.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from router.domain.attempts import next_plan
from router.domain.figures import NO_FIGURES, Snapshot
from router.domain.outcome import Admitted, Conflict, Outcome, Unavailable
from router.domain.plan import Deadlines, Features, Plan
from router.domain.request import DecideRequest
from router.domain.task import TaskRecord
from router.errors import StoreError
from router.ports.decisions import DecisionStore
from router.ports.policies import PolicyLookup
from router.usecases.policies.lookups import policies_of
from router.usecases.tasks.dispatch import Dispatcher
from router.wire.job import request_of

log = logging.getLogger("router.attempts")


GiveUp = Callable[[TaskRecord, str], Awaitable[None]]
"""Ends a task that no provider can take; may raise `StoreError`, and the task is due again."""


class Attempts:
    """Begins next attempts."""

    def __init__(
        self,
        decisions: DecisionStore,
        policies: PolicyLookup,
        dispatcher: Dispatcher,
        features: Callable[[], Features],
        deadlines: Deadlines,
        give_up: GiveUp,
        snapshot: Callable[[str], Snapshot] = lambda _: NO_FIGURES,
    ) -> None:
        self._decisions = decisions
        self._policies = policies
        self._dispatcher = dispatcher
        self._features = features
        self._deadlines = deadlines
        self._give_up = give_up
        self._effects: set[asyncio.Task[None]] = set()
        self._snapshot = snapshot

    async def begin(self, record: TaskRecord, job: bytes | None) -> None:
        """Begin the attempt that a waiting task is due for; it is due again if the store does not answer.

        :raises StoreError: the tenant's policies could not be read.
        """
        facts = record.facts
        policies = await policies_of(self._policies, facts.tenant_id)
        stored = None if policies is None else policies.policies.get(facts.policy_id)
        if job is None or stored is None:
            await self._give_up(record, "WORK_ITEM_LOST" if job is None else "POLICY_DELETED")
            return
        try:
            request = request_of(job)
        except ValueError as fault:
            log.error("a work item cannot be read: %s", fault)
            await self._give_up(record, "WORK_ITEM_UNREADABLE")
            return
        made = next_plan(request, stored, record, self._features(), self._deadlines, self._snapshot(facts.tenant_id))
        self._decisions.next_attempt(request, made, record, job, partial(self._decided, request, made, record, job))

    def _decided(
        self, request: DecideRequest, made: Plan, record: TaskRecord, job: bytes, outcome: Outcome, _stamp: bytes
    ) -> None:
        if isinstance(outcome, Admitted):
            self._dispatcher.next_attempt(request, made, record, outcome, job)
        elif isinstance(outcome, Conflict | Unavailable):
            # Another pod has it, or the claim runs out and it is due again.
            log.debug("a next attempt was not begun here: %s", type(outcome).__name__)
        else:
            ending = asyncio.get_running_loop().create_task(self._end(record))
            self._effects.add(ending)
            ending.add_done_callback(self._effects.discard)

    async def _end(self, record: TaskRecord) -> None:
        try:
            await self._give_up(record, "ALL_PROVIDERS_FAILED")
        except StoreError as fault:
            log.warning("a task could not be ended and is due again: %s", fault)
