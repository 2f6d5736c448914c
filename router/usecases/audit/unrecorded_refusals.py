"""Counts of refusals that have no audit record of their own, because the tenant's quota of records is spent.

The script writes a record for the refusal that finds the quota spent (lua/decide.lua). The pods count the refusals
after it and write one record with the count per second, so the log accounts for every refusal. A pod that is killed
loses the counts of its last second, like its deferred records.
"""

import asyncio
import logging

from msgspec.structs import replace

from router.domain.audit.entries import AUDIT_QUOTA
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.tasks.task import Action, Move
from router.errors import StoreError
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.audit.features import features_of_decision, pack_decision_features

log = logging.getLogger("router.audit")

_PER_CALL = 128
_NO_DECISION = bytes(16)


class _Waiting:
    """The first refused request of a tenant, its plan, and the number of refusals."""

    __slots__ = ("count", "plan", "request")

    def __init__(self, request: DecideRequest, plan: Plan) -> None:
        self.request = request
        self.plan = plan
        self.count = 0


class UnrecordedRefusals:
    """Counts refusals by tenant and writes the counts once a second; they grow on while the store is unavailable."""

    def __init__(self, tasks: TaskStore, telemetry: Telemetry, *, every_s: float = 1.0) -> None:
        self._tasks = tasks
        self._counted = telemetry.audit_unrecorded
        self._every_s = every_s
        self._waiting: dict[str, _Waiting] = {}

    def refused(self, request: DecideRequest, plan: Plan) -> None:
        """Count a refusal. Never raises."""
        self._counted.inc()
        waiting = self._waiting.get(request.tenant_id)
        if waiting is None:
            waiting = self._waiting[request.tenant_id] = _Waiting(request, plan)
        waiting.count += 1

    async def run(self) -> None:
        """Write once per interval forever; cancel to stop."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write the counts; if the store does not answer, they are kept."""
        while self._waiting:
            batch = [self._waiting.pop(tenant) for tenant in list(self._waiting)[:_PER_CALL]]
            try:
                await self._tasks.move([_note_move(waiting) for waiting in batch], replicated=False)
            except StoreError as fault:
                log.debug("counts of refusals without a record not written, they wait: %s", fault)
                for waiting in batch:
                    self._put_back(waiting)
                return

    def _put_back(self, unwritten: _Waiting) -> None:
        """Keep a count that was not written, together with the refusals counted during the write."""
        newer = self._waiting.setdefault(unwritten.request.tenant_id, unwritten)
        if newer is not unwritten:
            unwritten.count += newer.count
            self._waiting[unwritten.request.tenant_id] = unwritten


def _note_move(waiting: _Waiting) -> Move:
    features = replace(features_of_decision(waiting.request, waiting.plan), times=waiting.count)
    return Move(
        tenant_id=waiting.request.tenant_id,
        decision_id=_NO_DECISION,
        action=Action.DECISION_REFUSED,
        features=pack_decision_features(features),
        code=AUDIT_QUOTA,
        note=True,
    )
