"""Refusals that a tenant's quota of audit records left no record for: counted, and told in the log once a second.

So the log has no hole: the last record before a gap is of a refusal that found the quota used up (lua/decide.lua), and
the records of this module say how many followed, over all pods. Only a pod that is killed takes the count of its last
second along, as it does with what it has deferred.
"""

import asyncio
import logging

from msgspec.structs import replace

from router.domain.audit_entries import AUDIT_QUOTA
from router.domain.plan import Plan
from router.domain.request import DecideRequest
from router.domain.task import Action, Move
from router.errors import StoreError
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.audit.features import features_of_decision, pack_decision_features

log = logging.getLogger("router.audit")

_PER_CALL = 128
_NO_DECISION = bytes(16)


class _Waiting:
    """The first of a tenant's, and how many there were."""

    __slots__ = ("count", "plan", "request")

    def __init__(self, request: DecideRequest, plan: Plan) -> None:
        self.request = request
        self.plan = plan
        self.count = 0


class Unrecorded:
    """Counts them by tenant and writes that once a second; what comes while the store is away is counted on."""

    def __init__(self, tasks: TaskStore, telemetry: Telemetry, *, every_s: float = 1.0) -> None:
        self._tasks = tasks
        self._counted = telemetry.audit_unrecorded
        self._every_s = every_s
        self._waiting: dict[str, _Waiting] = {}

    def refused(self, request: DecideRequest, plan: Plan) -> None:
        """One refusal. Never raises."""
        self._counted.inc()
        waiting = self._waiting.get(request.tenant_id)
        if waiting is None:
            waiting = self._waiting[request.tenant_id] = _Waiting(request, plan)
        waiting.count += 1

    async def run(self) -> None:
        """Write for ever; cancel to stop."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; it waits on when the store does not answer."""
        while self._waiting:
            some = [self._waiting.pop(tenant) for tenant in list(self._waiting)[:_PER_CALL]]
            try:
                await self._tasks.move([_record(one) for one in some])
            except StoreError as fault:
                log.debug("refusals without a record are told later: %s", fault)
                for one in some:
                    self._put_back(one)
                return

    def _put_back(self, one: _Waiting) -> None:
        since = self._waiting.setdefault(one.request.tenant_id, one)
        if since is not one:
            one.count += since.count
            self._waiting[one.request.tenant_id] = one


def _record(waiting: _Waiting) -> Move:
    features = replace(features_of_decision(waiting.request, waiting.plan), times=waiting.count)
    return Move(
        waiting.request.tenant_id,
        _NO_DECISION,
        Action.DECISION_REFUSED,
        pack_decision_features(features),
        AUDIT_QUOTA,
        note=True,
    )
