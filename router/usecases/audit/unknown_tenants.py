"""Audit of refusals without a tenant log: the tenant has no policy or is not allowed here, or the policy is unknown.

An unknown name creates no keys of its own, so these refusals go to one bounded log of the whole fleet. A flood writes
few records: refusals with the same tenant, policy and code within a second are one record with a count. A pod writes
at most `MAX_KINDS` records a second.
"""

import asyncio
import logging

from router.domain.audit.records import UnknownTenant
from router.domain.decide.decision import Code, Refused
from router.domain.decide.request import DecideRequest
from router.errors import StoreError
from router.ports.audit import UnknownTenantLog
from router.telemetry import Telemetry

log = logging.getLogger("router.audit")

MAX_KINDS = 256


class _Waiting:
    """The first refused request of a kind, and the number of refusals of that kind."""

    __slots__ = ("count", "request")

    def __init__(self, request: DecideRequest) -> None:
        self.request = request
        self.count = 0


class UnknownTenants:
    """Counts refusals by kind and writes the counts once a second; they grow on while the store is unavailable."""

    def __init__(self, store: UnknownTenantLog, telemetry: Telemetry, *, every_s: float = 1.0) -> None:
        self._store = store
        self._recorded = telemetry.audit_unknown.labels("recorded")
        self._dropped = telemetry.audit_unknown.labels("dropped")
        self._every_s = every_s
        self._waiting: dict[tuple[str, str, Code], _Waiting] = {}
        self._writing = asyncio.Lock()

    def refused(self, request: DecideRequest, refused: Refused) -> None:
        """Count a refusal. Never raises."""
        kind = request.tenant_id, request.policy_id, refused.code
        waiting = self._waiting.get(kind)
        if waiting is None:
            if len(self._waiting) >= MAX_KINDS:
                self._dropped.inc()
                return
            waiting = self._waiting[kind] = _Waiting(request)
        waiting.count += 1

    async def run(self) -> None:
        """Write once per interval forever; cancel to stop."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write the counts; if the store does not answer, they are kept. One at a time: none is written twice."""
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        if not self._waiting:
            return
        written = {kind: w.count for kind, w in self._waiting.items()}
        records = [
            UnknownTenant(
                tenant_id=tenant_id,
                policy_id=policy_id,
                code=code.value,
                times=w.count,
                request_id=w.request.request_id,
                ip_address=w.request.client_ip,
                trace_id=w.request.correlation.trace_id,
            )
            for (tenant_id, policy_id, code), w in self._waiting.items()
        ]
        try:
            await self._store.record(records)
        except StoreError as fault:
            log.debug("refusals of unknown tenants not written, they wait: %s", fault)
            return
        for kind, count in written.items():
            self._recorded.inc(count)
            self._waiting[kind].count -= count
            if self._waiting[kind].count == 0:
                del self._waiting[kind]
