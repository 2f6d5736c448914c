"""One pod: its parts, and the order in which they start and stop.

    start  HTTP (alive, not ready) → gate → NATS → store → seed → streams → consumers → the decide subscription
    stop   not ready → subscription paused → answers sent → assignments published → consumers stopped → disconnect

Redis or NATS may be unavailable at boot: the pod starts, is not ready, reports why, and retries. It takes requests from
the first readiness on; later outages are metrics and alerts. Readiness is only withdrawn while a stream covers a
request/reply subject, or NATS does not permit the subscription to decide requests.
"""

import asyncio
import gc
import logging
import math
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from router import __version__
from router.app.adapter_settings import bus_options, secrets_of, short_tokens, tokens_of
from router.app.audit import AuditParts
from router.app.deciding import DecideParts
from router.app.platform import Platform
from router.app.policies import PolicyParts
from router.app.redis_nodes import insecure_redis
from router.app.rotation import Rotation
from router.app.services import Services
from router.app.tasks import TaskParts
from router.bus import announce, workers
from router.domain.alert import FLEET, Condition
from router.domain.degraded import STORE_PARTS, Degradable
from router.errors import BusError, StartupRefused, StoreError
from router.log_limit import flush_left_out
from router.log_throttle import LogThrottle
from router.logs import configure
from router.settings import Settings
from router.settings.tokens import SHORTEST_SOON
from router.store.keys import NO_TENANT
from router.telemetry import Event, LoopLag
from router.usecases.alerts.thresholds import Level

log = logging.getLogger("router.app")

_BUS_AWAY_S = 2.0
_MEMORY_EVERY_S = 15


async def serve(settings: Settings) -> int:
    """Run a pod until SIGTERM or SIGINT and return the exit code of the process.

    0 after a clean stop, 2 if the settings contradict the store (the log holds the details).
    """
    configure(settings.log_level, settings.log_format, pod=settings.pod_name, secrets=secrets_of(settings))
    pod = Pod(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    try:
        await pod.start()
        await pod.until(stop)
    except StartupRefused as refused:
        log.critical("%s", refused, extra={"event": Event.STARTUP_REFUSED})
        return 2
    finally:
        await pod.stop()
    return 0


class Pod:
    """A pod's life: start, serve, drain, stop."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings
        self._platform = Platform(settings)
        self._audit = AuditParts(self._platform)
        self._policies = PolicyParts(self._platform, self._audit)
        self._tasks = TaskParts(self._platform, self._policies)
        self._deciding = DecideParts(self._platform, self._audit, self._policies, self._tasks)
        self._services = Services(self._platform, self._policies, self._tasks, self._deciding)
        self._memory = Level(self._platform.alerts, Condition.STORE_MEMORY, FLEET, raise_at=0.9, clear_at=0.8)
        self._lag = LoopLag(self._platform.telemetry.loop_lag)
        self._rotation = self._rotated_parts()
        self._running: list[asyncio.Task[None]] = []
        self._unopened = self._bus_parts()

    async def start(self) -> None:
        """Start everything and return at once. Unavailable servers are waited for in the background.

        :raises StartupRefused: a setting that only pods need is missing.
        """
        s, platform = self._s, self._platform
        if s.audit_identity == "hashed" and s.audit_identity_key is None:
            raise StartupRefused("ROUTER_AUDIT_IDENTITY is hashed and has no key: set ROUTER_AUDIT_IDENTITY_KEY_FILE")
        log.info("pod %s of version %s starts", s.pod_name, __version__, extra={"event": Event.POD_STARTING})
        for holder in short_tokens(s):
            log.warning(
                "the admin token of %s has fewer than %d characters; the next release refuses it: make a longer one",
                holder,
                SHORTEST_SOON,
                extra={"event": Event.ADMIN_TOKEN_SHORT},
            )
        for weakened in insecure_redis(s):
            log.warning(
                "TLS to Redis does not prove who the server is (%s); remove the parameter, set ROUTER_REDIS_TLS_CA",
                weakened,
                extra={"event": Event.STORE_TLS_INSECURE},
            )
        await self._services.http.start(s.http_host, s.http_port)
        self._lag.start()
        await platform.gate.poll()
        await platform.bus.start()
        self._run(self._boot(), "boot")
        self._run(self._every_second(), "ticker")
        self._run(self._watch_servers(), "servers")
        self._run(platform.gate.watch(s.cp_poll_ms / 1000), "gate")
        if self._rotation.watches:
            self._run(self._rotation.run(s.secrets_poll_ms / 1000), "rotation")

    def _rotated_parts(self) -> Rotation:
        platform, tokens = self._platform, self._services.tokens

        async def nats(s: Settings) -> None:
            await platform.bus.renew(bus_options(s))

        async def admin(s: Settings) -> None:
            tokens.replace(tokens_of(s))

        parts = {"nats": nats, "redis": platform.store.renew, "admin": admin}
        return Rotation(self._s, platform.telemetry, parts, secrets_of)

    async def until(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set.

        :raises StartupRefused: this pod must not run against this store.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await asyncio.wait([stopping, *self._running], return_when=asyncio.FIRST_COMPLETED)
                for task in [t for t in self._running if t.done()]:
                    self._running.remove(task)
                    if (fault := task.exception()) is not None:
                        raise fault
        finally:
            stopping.cancel()

    def _run(self, work: Awaitable[None], name: str) -> None:
        self._running.append(asyncio.ensure_future(_named(work, name)))

    async def _boot(self) -> None:
        """Boot from "alive" to "serving"; every step is retried until it succeeds."""
        platform, audit, policies, tasks = self._platform, self._audit, self._policies, self._tasks
        platform.readiness.not_ok("bus", "connecting")
        await self._until_done("store", self._open_store)
        await self._until_done("policies", policies.guard.check)
        self._run(policies.guard.run(), "guard")
        self._run(policies.cache.run(), "policies")
        self._run(platform.gate_log.run(), "gate log")
        self._run(policies.figures.run(), "figures")
        while not await platform.bus.wait_connected(_BUS_AWAY_S):
            why = platform.bus.last_error or "no answer yet"
            platform.readiness.not_ok("bus", f"NATS is unavailable: {why}")
        await self._until_done("bus", self._open_bus)
        # Before the streams are checked: a forbidden stream raises an alert, and the boot waits until it is resolved.
        self._run(platform.alerts.run(), "alerts")
        self._run(platform.alerts.maintain(), "episodes")
        await platform.keeper.start()
        await platform.stream_watch.fit.wait()
        for pull in tasks.loops.values():
            await pull.start()
        self._run(tasks.sweeper.run(), "sweeper")
        audit.retention.served(NO_TENANT)
        self._run(audit.retention.run(), "retention")
        self._run(audit.unknown.run(), "unknown tenants")
        self._run(audit.unrecorded.run(), "unrecorded refusals")
        if Degradable.STORE_WALKS not in platform.store.missing.parts:
            self._run(policies.census.run(), "census")
        self._run(policies.measure.run(), "measure")
        self._run(policies.breaker_episodes.run(), "breaker episodes")
        await self._until_done("serving", self._open_endpoint)
        _settle_garbage_collector()
        self._deciding.standstill.start()
        log.info("pod %s serves", self._s.pod_name, extra={"event": Event.POD_READY})

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
                    self._platform.readiness.not_ok(condition, str(fault))
                    if (unsaid := throttle.due(str(fault))) is not None:
                        fields = {"event": Event.POD_NOT_READY, "unsaid": unsaid}
                        log.warning("not ready: %s", fault, extra=fields)
                    raise
        self._platform.readiness.ok(condition)

    async def _open_store(self) -> None:
        store = self._platform.store
        await store.open()
        await store.meta.ensure()
        off = await store.degraded()
        for part in STORE_PARTS:
            if part in off:
                self._platform.readiness.degrade(part, off[part])
            else:
                self._platform.readiness.restore(part)

    async def _open_endpoint(self) -> None:
        """Take requests, once the pod may pull results and acks."""
        for loop in self._tasks.loops.values():
            await loop.check_permission()
        await self._deciding.endpoint.open()

    async def _open_bus(self) -> None:
        """Open what is not open yet; called again after a refused permission."""
        while self._unopened:
            await self._unopened[0]()
            self._unopened.pop(0)

    def _bus_parts(self) -> list[Callable[[], Awaitable[object]]]:
        bus, workers_seen, cache = self._platform.bus, self._tasks.workers, self._policies.cache
        return [
            self._platform.publisher.start,
            partial(announce.listen, bus, lambda tenant_id, _revision: cache.announced(tenant_id)),
            partial(workers.hear_heartbeats, bus, workers_seen.heartbeat),
            partial(workers.hear_dead_letters, bus, workers_seen.dead_letter),
            self._services.open,
        ]

    async def _watch_servers(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._platform.tick()

    async def _every_second(self) -> None:
        platform, t = self._platform, self._platform.telemetry
        seconds = 0
        while True:
            await asyncio.sleep(1.0)
            seconds += 1
            if seconds % _MEMORY_EVERY_S == 0:
                await self._check_memory()
            platform.store.lanes.tick()
            self._services.recent.tick()
            self._services.wrong_tokens.tick()
            flush_left_out()
            self._tasks.tick()
            self._audit.watch.tick()
            t.loop_tasks.set(len(asyncio.all_tasks()))
            t.in_flight.set(self._deciding.decide.in_flight)
            t.policy_loads_waiting.set(self._policies.cache.loads_waiting)
            t.nats_connected.set(int(platform.bus.connected))
            if platform.bus.connected:
                try:
                    t.nats_rtt.set(await platform.bus.rtt())
                except BusError as fault:
                    log.debug("no round trip to NATS: %s", fault)

    async def _check_memory(self) -> None:
        try:
            share = await self._platform.store.servers.memory_share()
            self._platform.telemetry.store_memory_share.set(math.nan if share is None else share)
            self._platform.memory_share = share or 0.0
            if share is not None:
                self._memory.read(share)
            await self._check_eviction()
        except StoreError as fault:
            log.debug("memory of the store unknown: %s", fault)

    async def _check_eviction(self) -> None:
        """Report a policy that was changed while the pod serves; at boot it keeps the pod from being ready."""
        problems = (await self._platform.store.servers.eviction()).problems
        if problems:
            self._platform.readiness.degrade(Degradable.EVICTION, "; ".join(problems))
        else:
            self._platform.readiness.restore(Degradable.EVICTION)

    async def stop(self) -> None:
        """Drain and stop. Accepted work is answered and published, or left to the other pods."""
        platform = self._platform
        platform.draining = True
        platform.readiness.not_ok("serving", "draining")
        log.info("pod %s drains", self._s.pod_name, extra={"event": Event.POD_DRAINING})
        try:
            async with asyncio.timeout(self._s.drain_timeout_s):
                await self._drain()
        except TimeoutError:
            log.error("drain timed out; the other pods take over the remaining work")
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await platform.keeper.stop()
        await platform.publisher.stop(1.0)
        await platform.bus.close()
        await platform.store.close()
        self._lag.stop()
        self._deciding.standstill.stop()
        await asyncio.to_thread(platform.tracing.close)
        await self._services.http.stop()
        log.info("pod %s has stopped", self._s.pod_name, extra={"event": Event.POD_STOPPED})

    async def _drain(self) -> None:
        await self._deciding.endpoint.pause()
        await self._deciding.decide.drained()
        await self._tasks.dispatcher.drained()
        await self._services.drained()
        await self._tasks.drained()
        await self._deciding.watch.drained()
        await self._audit.drained()


def _settle_garbage_collector() -> None:
    """Exempt the objects of the boot from garbage collection, since they live as long as the pod.

    Requests create few reference cycles, so young collections may be rarer, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _named(work: Awaitable[None], name: str) -> None:
    current = asyncio.current_task()
    if current is not None:
        current.set_name(name)
    await work
