"""How full limits are and how breakers stand, of tenants in use: looked at beside the requests, by one pod at a time.

In use are the tenants whose policies the pod holds: those that asked it in the last minutes. Users' limits are not
looked at, since there may be millions; `router_limit_refusals_total` counts what they refuse.
"""

import asyncio
import logging
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Sequence

from router.domain.limit_usage import Counter, LimitUsage, counters_of
from router.domain.policy.model import TenantPolicies
from router.errors import StoreError
from router.ports.tenants import LimitUsageStore
from router.telemetry import Telemetry
from router.telemetry.metrics import BREAKER_STATES

log = logging.getLogger("router.measure")

EVERY_S = 10.0
LEASE_STEPS = 3
AT_ONCE = 32
NEAR = 0.9


class _Seen:
    """What a look has seen so far."""

    def __init__(self) -> None:
        self.breakers: Counts[str] = Counts()
        self.fullest: dict[tuple[str, str, str], float] = {}
        self.near: Counts[tuple[str, str]] = Counts()

    def add(self, label: str, counters: Sequence[Counter], standing: LimitUsage) -> None:
        """One tenant, by its label."""
        for state, n in zip(BREAKER_STATES, (standing.open, standing.half_open, standing.forced), strict=True):
            self.breakers[state] += n
        for counter, used in zip(counters, standing.used, strict=True):
            kind = counter.scope.value, counter.resource.value
            ratio = used / counter.maximum if counter.maximum else 1.0
            named = (*kind, label)
            self.fullest[named] = max(ratio, self.fullest.get(named, 0.0))
            self.near[kind] += ratio >= NEAR


class Measure:
    """Looks every `every_s` seconds while it leads. `held` gives the policies that this pod holds.

    `lead(lease_ms)`: whether this pod is the one that looks (`ports.StoreSample.lead`).
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
        self._told: set[tuple[str, str, str]] = set()

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        while True:
            try:
                if self._may_work():
                    await self.poll()
            except StoreError as fault:
                log.debug("limits and breakers are not looked at now: %s", fault)
            await asyncio.sleep(self._every_s)

    async def poll(self) -> None:
        """Tell how all of them stand, if this pod leads; else nothing.

        :raises StoreError: Redis did not answer; what was told before stays.
        """
        if not await self._lead(round(LEASE_STEPS * self._every_s * 1000)):
            self._tell(_Seen(), 0)
            return
        tenants = self._held()
        seen = _Seen()
        for at in range(0, len(tenants), AT_ONCE):
            some = [(t.tenant_id, counters_of(t)) for t in tenants[at : at + AT_ONCE]]
            for (tenant_id, counters), standing in zip(some, await self._store.measure(some), strict=True):
                if standing is not None:
                    seen.add(self._telemetry.decisions.label(tenant_id), counters, standing)
        self._tell(seen, len(tenants))

    def _tell(self, seen: _Seen, tenants: int) -> None:
        t = self._telemetry
        t.measured_tenants.set(tenants)
        for state in BREAKER_STATES:
            t.breakers.labels(state).set(seen.breakers[state])
        # A kind of limit that is gone is told as empty: its series stays.
        self._told |= seen.fullest.keys()
        for named in self._told:
            t.limit_used.labels(*named).set(seen.fullest.get(named, 0.0))
            t.limits_near.labels(*named[:2]).set(seen.near[named[:2]])
