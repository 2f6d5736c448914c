"""Audit records of degraded decisions: kept by the pod while the store is away, written when it is back.

They are lost with the pod, and the oldest go when there are too many; both are said.
"""

import asyncio
import logging
from collections import deque

from router.domain.decision import Decided
from router.domain.ids import from_text
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import Action, Move
from router.errors import StoreError
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of_decision, pack_decision_features

log = logging.getLogger("router.audit")

MAXIMUM = 10_000
_PER_CALL = 128


class DeferredAudit:
    """Keeps and later writes them."""

    def __init__(self, tasks: TaskStore, telemetry: Telemetry) -> None:
        self._tasks = tasks
        self._telemetry = telemetry
        self._waiting: deque[Move] = deque()
        self._writing: asyncio.Task[None] | None = None

    def made(self, request: DecideRequest, plan: Plan, decided: Decided) -> None:
        """A degraded decision was given."""
        decision = decided.decision
        if len(self._waiting) >= MAXIMUM:
            self._waiting.popleft()
            log.error(
                "too many audit records wait for the store: the oldest is lost", extra={"event": Event.AUDIT_DEFERRED}
            )
        features = features_of_decision(request, plan)
        self._waiting.append(
            Move(
                request.tenant_id,
                from_text(decision.decision_id) or bytes(16),
                Action.DECISION_DEGRADED,
                pack_decision_features(features),
                decision.reason,
                attempt=features.frame.providers.index(decision.provider_id),
                note=True,
            )
        )
        self._telemetry.audit_deferred.set(len(self._waiting))

    def store_is_back(self) -> None:
        """Write what has waited."""
        if self._waiting and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                # Taken out: who comes meanwhile and finds too many drops none of these.
                some = [self._waiting.popleft() for _ in range(min(_PER_CALL, len(self._waiting)))]
                try:
                    await self._tasks.move(some)
                except StoreError as fault:
                    self._waiting.extendleft(reversed(some))
                    log.warning("deferred audit records wait on: %s", fault, extra={"event": Event.AUDIT_DEFERRED})
                    return
                self._telemetry.audit_deferred.set(len(self._waiting))
        finally:
            self._writing = None

    async def drained(self) -> None:
        """One last try, at the end of the pod's life."""
        self.store_is_back()
        if self._writing is not None:
            await asyncio.wait([self._writing])
