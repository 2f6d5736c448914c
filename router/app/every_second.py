"""What a pod does once a second: it counts, measures and checks, beside the requests."""

import asyncio
import logging
import math

from router.app.parts import Parts
from router.domain.alert import FLEET, Condition
from router.domain.degraded import Degradable
from router.errors import BusError, StoreError
from router.log_limit import flush_left_out
from router.usecases.alerts.thresholds import Level

log = logging.getLogger("router.app")

_MEMORY_EVERY_S = 15


class EverySecond:
    """The ticks of all parts, the gauges that are read from them, and the memory of the store."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._memory = Level(parts.platform.alerts, Condition.STORE_MEMORY, FLEET, raise_at=0.9, clear_at=0.8)

    async def run(self) -> None:
        """Run until cancelled."""
        platform, t = self._parts.platform, self._parts.platform.telemetry
        seconds = 0
        while True:
            await asyncio.sleep(1.0)
            seconds += 1
            if seconds % _MEMORY_EVERY_S == 0:
                await self._check_memory()
            platform.store.lanes.tick()
            self._parts.services.recent.tick()
            self._parts.services.wrong_tokens.tick()
            self._parts.api.wrong_keys.tick()
            flush_left_out()
            self._parts.tasks.tick()
            self._parts.audit.watch.tick()
            t.loop_tasks.set(len(asyncio.all_tasks()))
            t.in_flight.set(self._parts.deciding.decide.in_flight)
            t.policy_loads_waiting.set(self._parts.policies.cache.loads_waiting)
            t.nats_connected.set(int(platform.bus.connected))
            if platform.bus.connected:
                try:
                    t.nats_rtt.set(await platform.bus.rtt())
                except BusError as fault:
                    log.debug("no round trip to NATS: %s", fault)

    async def _check_memory(self) -> None:
        try:
            share = await self._parts.platform.store.servers.memory_share()
            self._parts.platform.telemetry.store_memory_share.set(math.nan if share is None else share)
            self._parts.platform.memory_share = share or 0.0
            if share is not None:
                self._memory.read(share)
            await self._check_eviction()
        except StoreError as fault:
            log.debug("memory of the store unknown: %s", fault)

    async def _check_eviction(self) -> None:
        """Report a policy that was changed while the pod serves; at boot it keeps the pod from being ready."""
        problems = (await self._parts.platform.store.servers.eviction()).problems
        if problems:
            self._parts.platform.readiness.degrade(Degradable.EVICTION, "; ".join(problems))
        else:
            self._parts.platform.readiness.restore(Degradable.EVICTION)
