"""Usage of limits and states of breakers for tenants in use, measured beside the requests by one pod at a time.

A tenant is in use if the pod has its policies cached, because of requests in the last minutes. Limits of users are not
measured, since there may be millions; the metric `router_limit_refusals_total` counts their refusals.
"""

import asyncio
import logging
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Sequence

from router.chunks import chunks
from router.domain.policy.limit_usage import Counter, LimitUsage, counters_of
from router.domain.policy.model import TenantPolicies
from router.errors import StoreError
from router.ports.tenants import LimitUsageStore
from router.telemetry import Telemetry
from router.telemetry.metrics.decisions import BREAKER_STATES

log = logging.getLogger("router.measure")

EVERY_S = 10.0
LEASE_STEPS = 3
AT_ONCE = 32
NEAR = 0.9


class _Totals:
    """Totals of one measurement."""

    def __init__(self) -> None:
        self.breakers: Counts[str] = Counts()
        self.fullest: dict[tuple[str, str, str], float] = {}
        self.near: Counts[tuple[str, str]] = Counts()

    def add(self, label: str, counters: Sequence[Counter], usage: LimitUsage) -> None:
        """Add a tenant under its metric label."""
        for state, n in zip(BREAKER_STATES, (usage.open, usage.half_open, usage.forced), strict=True):
            self.breakers[state] += n
        for counter, used in zip(counters, usage.used, strict=True):
            kind = counter.scope.value, counter.resource.value
            ratio = used / counter.maximum if counter.maximum else 1.0
            labels = (*kind, label)
            self.fullest[labels] = max(ratio, self.fullest.get(labels, 0.0))
            self.near[kind] += ratio >= NEAR


class LimitUsageSampler:
    """Measures every `every_s` seconds while this pod leads.

    `held` returns the policies that this pod has cached. `lead(lease_ms)` takes or keeps the lead and returns whether
    this pod has it (`ports.tenants.StoreSample.lead`).
    """

    def __init__(
        self,
        store: LimitUsageStore,
        held: Callable[[], Sequence[TenantPolicies]],
        lead: Callable[[int], Awaitable[bool]],
        telemetry: Telemetry,
        *,
        may_work: Callable[[], bool],
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._held = held
        self._lead = lead
        self._telemetry = telemetry
        self._may_work = may_work
        self._every_s = every_s
        self._reported: set[tuple[str, str, str]] = set()

    async def run(self) -> None:
        """Measure forever; cancel to stop."""
        while True:
            try:
                if self._may_work():
                    await self.poll()
            except StoreError as fault:
                log.debug("limits and breakers not measured: %s", fault)
            await asyncio.sleep(self._every_s)

    async def poll(self) -> None:
        """Measure all tenants in use and set the metrics, if this pod leads; else set them to zero.

        :raises StoreError: Redis did not answer; the metrics stay as they are.
        """
        if not await self._lead(round(LEASE_STEPS * self._every_s * 1000)):
            self._report(_Totals(), 0)
            return
        tenants = self._held()
        totals = _Totals()
        for chunk in chunks(tenants, AT_ONCE):
            batch = [(t.tenant_id, counters_of(t)) for t in chunk]
            for (tenant_id, counters), usage in zip(batch, await self._store.measure(batch), strict=True):
                if usage is not None:
                    totals.add(self._telemetry.decisions.label(tenant_id), counters, usage)
        self._report(totals, len(tenants))

    def _report(self, totals: _Totals, tenants: int) -> None:
        t = self._telemetry
        t.measured_tenants.set(tenants)
        for state in BREAKER_STATES:
            t.breakers.labels(state).set(totals.breakers[state])
        # A limit that is gone is reported as 0, because its series stays.
        self._reported |= totals.fullest.keys()
        for labels in self._reported:
            t.limit_used.labels(*labels).set(totals.fullest.get(labels, 0.0))
            t.limits_near.labels(*labels[:2]).set(totals.near[labels[:2]])
