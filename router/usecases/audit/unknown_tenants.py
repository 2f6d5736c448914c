"""Refusals that no tenant's log can hold: a tenant without a policy or not allowed here, a policy that is not there.

They go to one bounded log of the whole fleet, since unknown names create no keys. A flood makes few records: what has
the same tenant, policy and code within a second is one record with a count; a pod writes `MAX_KINDS` a second at most.
"""

import asyncio
import logging

from router.domain.audit import UnknownTenant
from router.domain.decision import Code, Refused
from router.domain.request import DecideRequest
from router.errors import StoreError
from router.ports.audit import UnknownTenantLog
from router.telemetry import Telemetry

log = logging.getLogger("router.audit")

MAX_KINDS = 256


class _Waiting:
    """The first of a kind, and how many there were."""

    __slots__ = ("count", "request")

    def __init__(self, request: DecideRequest) -> None:
        self.request = request
        self.count = 0


class UnknownTenants:
    """Counts what is refused and writes it once a second; what comes while the store is away is counted on."""

    def __init__(self, store: UnknownTenantLog, telemetry: Telemetry, *, every_s: float = 1.0) -> None:
        self._store = store
        self._recorded = telemetry.audit_unknown.labels("recorded")
        self._dropped = telemetry.audit_unknown.labels("dropped")
        self._every_s = every_s
        self._waiting: dict[tuple[str, str, Code], _Waiting] = {}

    def refused(self, request: DecideRequest, refused: Refused) -> None:
        """One refusal. Never raises."""
        kind = request.tenant_id, request.policy_id, refused.code
        waiting = self._waiting.get(kind)
        if waiting is None:
            if len(self._waiting) >= MAX_KINDS:
                self._dropped.inc()
                return
            waiting = self._waiting[kind] = _Waiting(request)
        waiting.count += 1

    async def run(self) -> None:
        """Write for ever; cancel to stop."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; it waits on when the store does not answer."""
        if not self._waiting:
            return
        written = {kind: w.count for kind, w in self._waiting.items()}
        records = [
            UnknownTenant(
                tenant_id,
                policy_id,
                code.value,
                w.count,
                w.request.request_id,
                w.request.client_ip,
                w.request.correlation.trace_id,
            )
            for (tenant_id, policy_id, code), w in self._waiting.items()
        ]
        try:
            await self._store.record(records)
        except StoreError as fault:
            log.debug("refusals of unknown tenants are written later: %s", fault)
            return
        for kind, count in written.items():
            self._recorded.inc(count)
            self._waiting[kind].count -= count
            if self._waiting[kind].count == 0:
                del self._waiting[kind]
