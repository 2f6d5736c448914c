"""Audit records of degraded decisions: kept in the pod while the store is unavailable, and written afterwards.

At most `MAXIMUM` records wait: a newer one replaces the oldest, which is logged as lost. Waiting records are also lost
when the pod dies; a metric shows their number.
"""

import asyncio
import logging
from collections import deque

from router.domain.decide.decision import Decided
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import from_text
from router.domain.tasks.task import Action, Move
from router.errors import StoreError
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.audit.features import features_of_decision, pack_decision_features

log = logging.getLogger("router.audit")

MAXIMUM = 10_000
_PER_CALL = 128


class DeferredAudit:
    """Keeps records and writes them once the store is available."""

    def __init__(self, tasks: TaskStore, telemetry: Telemetry) -> None:
        self._tasks = tasks
        self._telemetry = telemetry
        self._waiting: deque[Move] = deque()
        self._writing: asyncio.Task[None] | None = None

    def add(self, request: DecideRequest, plan: Plan, decided: Decided) -> None:
        """Keep the record of a degraded decision."""
        decision = decided.decision
        if len(self._waiting) >= MAXIMUM:
            self._waiting.popleft()
            log.error(
                "oldest deferred audit record lost: too many wait for the store", extra={"event": Event.AUDIT_DEFERRED}
            )
        features = features_of_decision(request, plan)
        self._waiting.append(
            Move(
                tenant_id=request.tenant_id,
                decision_id=from_text(decision.decision_id) or bytes(16),
                action=Action.DECISION_DEGRADED,
                features=pack_decision_features(features),
                code=decision.reason,
                attempt=features.frame.providers.index(decision.provider_id),
                note=True,
            )
        )
        self._telemetry.audit_deferred.set(len(self._waiting))

    def store_is_back(self) -> None:
        """Write the waiting records."""
        if self._waiting and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                # Removed before the write, so that a record that arrives meanwhile cannot push one of these out.
                batch = [self._waiting.popleft() for _ in range(min(_PER_CALL, len(self._waiting)))]
                try:
                    await self._tasks.move(batch, replicated=False)
                except StoreError as fault:
                    self._waiting.extendleft(reversed(batch))
                    log.warning(
                        "deferred audit records not written, they wait: %s",
                        fault,
                        extra={"event": Event.AUDIT_DEFERRED},
                    )
                    return
                self._telemetry.audit_deferred.set(len(self._waiting))
        finally:
            self._writing = None

    async def drained(self) -> None:
        """Try once more to write the waiting records, when the pod stops."""
        self.store_is_back()
        if self._writing is not None:
            await asyncio.wait([self._writing])
