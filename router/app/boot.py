"""The boot of a pod, from "alive" to "serving"."""

import gc
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from router.app.parts import Parts
from router.bus import announce, workers
from router.domain.degraded import STORE_PARTS, Degradable
from router.errors import BusError, StoreError
from router.log_throttle import LogThrottle
from router.store.keys import NO_TENANT
from router.telemetry import Event

log = logging.getLogger("router.app")

_BUS_AWAY_S = 2.0


class Boot:
    """Opens the store, the bus and the endpoint in this order, and starts the pod's loops on the way.

    `start(work, name)` runs a loop until the pod stops.
    """

    def __init__(self, parts: Parts, start: Callable[[Awaitable[None], str], None]) -> None:
        self._parts = parts
        self._start = start
        self._unopened = self._bus_parts()

    async def run(self) -> None:
        """Boot; every step is retried until it succeeds."""
        parts, platform = self._parts, self._parts.platform
        platform.readiness.not_ok("bus", reason="connecting")
        await self._until_done("store", self._open_store)
        await self._until_done("policies", parts.policies.guard.check)
        self._start(parts.policies.guard.run(), "guard")
        self._start(parts.policies.cache.run(), "policies")
        self._start(platform.gate_log.run(), "gate log")
        self._start(parts.policies.figures.run(), "figures")
        while not await platform.bus.wait_connected(_BUS_AWAY_S):
            why = platform.bus.last_error or "no answer yet"
            platform.readiness.not_ok("bus", reason=f"NATS is unavailable: {why}")
        await self._until_done("bus", self._open_bus)
        # Before the streams are checked: a forbidden stream raises an alert, and the boot waits until it is resolved.
        self._start(platform.alerts.run(), "alerts")
        self._start(platform.alerts.maintain(), "episodes")
        await platform.keeper.start()
        await platform.stream_watch.fit.wait()
        for pull in parts.tasks.loops.values():
            await pull.start()
        self._start(parts.tasks.sweeper.run(), "sweeper")
        parts.audit.retention.served(NO_TENANT)
        self._start(parts.audit.retention.run(), "retention")
        self._start(parts.audit.unknown.run(), "unknown tenants")
        self._start(parts.audit.unrecorded.run(), "unrecorded refusals")
        if Degradable.STORE_WALKS not in platform.store.missing.parts:
            self._start(parts.policies.census.run(), "census")
        self._start(parts.policies.measure.run(), "measure")
        self._start(parts.policies.breaker_episodes.run(), "breaker episodes")
        await self._until_done("serving", self._open_endpoint)
        if platform.settings.api == "on":
            await parts.api.poll()
            self._start(parts.api.run(), "api")
        _settle_garbage_collector()
        parts.deciding.standstill.start()
        log.info("pod %s serves", platform.settings.pod_name, extra={"event": Event.POD_READY})

    async def _until_done(self, condition: str, step: Callable[[], Awaitable[object]]) -> None:
        retry = AsyncRetrying(
            retry=retry_if_exception_type((StoreError, BusError)), wait=wait_exponential(0.05, max=1.0)
        )
        throttle = LogThrottle(time.monotonic)
        async for attempt in retry:
            with attempt:
                try:
                    await step()
                except (StoreError, BusError) as fault:
                    self._parts.platform.readiness.not_ok(condition, reason=str(fault))
                    if (suppressed := throttle.due(str(fault))) is not None:
                        fields = {"event": Event.POD_NOT_READY, "unsaid": suppressed}
                        log.warning("not ready: %s", fault, extra=fields)
                    raise
        self._parts.platform.readiness.ok(condition)

    async def _open_store(self) -> None:
        store = self._parts.platform.store
        await store.open()
        await store.meta.ensure()
        off = await store.degraded()
        for part in STORE_PARTS:
            if part in off:
                self._parts.platform.readiness.degrade(part, off[part])
            else:
                self._parts.platform.readiness.restore(part)

    async def _open_endpoint(self) -> None:
        """Take requests, once the pod may pull results and acks."""
        for loop in self._parts.tasks.loops.values():
            await loop.check_permission()
        await self._parts.deciding.endpoint.open()

    async def _open_bus(self) -> None:
        """Open what is not open yet; called again after a refused permission."""
        while self._unopened:
            await self._unopened[0]()
            self._unopened.pop(0)

    def _bus_parts(self) -> list[Callable[[], Awaitable[object]]]:
        bus, workers_seen, cache = self._parts.platform.bus, self._parts.tasks.workers, self._parts.policies.cache
        return [
            self._parts.platform.publisher.start,
            partial(announce.listen, bus, lambda tenant_id, _revision: cache.announced(tenant_id)),
            partial(workers.hear_heartbeats, bus, workers_seen.heartbeat),
            partial(workers.hear_dead_letters, bus, workers_seen.dead_letter),
            self._parts.services.open,
        ]


def _settle_garbage_collector() -> None:
    """Exempt the objects of the boot from garbage collection, since they live as long as the pod.

    Requests create few reference cycles, so young collections may be rarer, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
