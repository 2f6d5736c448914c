"""One pod: its parts, and the order in which they start and stop.

    start  HTTP (alive, not ready) → gate → NATS → store → seed → streams → consumers → the decide door
    stop   not ready → door closed → answers given → assignments published → consumers stopped → connections closed

Redis or NATS may be absent at boot: the pod starts, is not ready, says why and tries again. The door opens with the
first readiness; later outages are metrics and alerts. Only a stream over a request/reply subject takes readiness back.
"""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from router import __version__
from router.app.hooks import Announcements
from router.app.parts import Parts
from router.app.rooms import admin_tokens, forget_ms, quotas, secrets_of
from router.bus import announce, service, workers
from router.domain.alert import Door
from router.domain.audit import Actor
from router.domain.decision import Code, Refused
from router.domain.json import JsonObject
from router.errors import BusError, StartupRefused, StoreError
from router.logs import configure
from router.seldom import Seldom
from router.settings import Settings
from router.store.keys import NO_TENANT
from router.telemetry import Event
from router.usecases.admin import Admin
from router.usecases.admin_acts import OperatorActs, PolicyActs
from router.usecases.levers import Operator
from router.usecases.publish_policy import PolicyPublisher
from router.usecases.purge import Purger
from router.usecases.queries import GetDecision
from router.usecases.tenant_acts import TenantActs
from router.wire import subjects
from router.wire.reply import encode

log = logging.getLogger("router.app")

_BUS_AWAY_S = 2.0
_MEMORY_EVERY_S = 15
_BUSY_MS = 100


async def serve(settings: Settings) -> int:
    """Run a pod until SIGTERM or SIGINT; the exit code of the process.

    0 after a clean stop, 2 when the settings contradict the store (the log says how).
    """
    configure(settings.log_level, settings.log_format, pod=settings.pod_name, secrets=secrets_of(settings))
    pod = Pod(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    try:
        await pod.start()
        await pod.until(stop)
    except StartupRefused as refused:
        log.critical("%s", refused, extra={"event": Event.STARTUP_REFUSED})
        return 2
    finally:
        await pod.stop()
    return 0


class Pod(Parts):
    """A pod's life: start, serve, drain, stop."""

    async def start(self) -> None:
        """Start everything; returns at once. What is absent is waited for in the background."""
        s = self._s
        log.info("pod %s of version %s starts", s.pod_name, __version__, extra={"event": Event.POD_STARTING})
        await self.http.start(s.http_host, s.http_port)
        self._lag.start()
        await self.gate.look()
        await self.bus.start()
        self._run(self._boot(), "boot")
        self._run(self._every_second(), "ticker")
        self._run(self._watch_servers(), "servers")
        self._run(self.gate.watch(s.cp_poll_ms / 1000), "gate")

    async def until(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set.

        :raises StartupRefused: this pod must not run against this store.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await asyncio.wait([stopping, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in [t for t in self._tasks if t.done()]:
                    self._tasks.remove(task)
                    if (fault := task.exception()) is not None:
                        raise fault
        finally:
            stopping.cancel()

    def _run(self, work: Awaitable[None], name: str) -> None:
        self._tasks.append(asyncio.ensure_future(_named(work, name)))

    async def _boot(self) -> None:
        """From "alive" to "serving"; every step is tried until it works."""
        self.readiness.not_ok("bus", "connecting")
        await self._until_done("store", self._open_store)
        await self._until_done("policies", self.guard.check)
        self._run(self.guard.run(), "guard")
        self._run(self.policies.run(), "policies")
        self._run(self.gate_log.run(), "gate log")
        self._run(self.figures.run(), "figures")
        while not await self.bus.wait_connected(_BUS_AWAY_S):
            self.readiness.not_ok("bus", "NATS does not answer; see the log")
        await self._until_done("bus", self._open_bus)
        # Before the streams are looked at: a stream that must not be there is an alert, and the boot waits for its end.
        self._run(self.alerts.run(), "alerts")
        self._run(self.alerts.tend(), "episodes")
        await self.keeper.start()
        await self._streams_fit.wait()
        for pull in self.loops:
            await pull.start()
        self._run(self.sweeper.run(), "sweeper")
        self.retention.served(NO_TENANT)
        self._run(self.retention.run(), "retention")
        self._run(self.unknown.run(), "unknown tenants")
        self._run(self.unrecorded.run(), "unrecorded refusals")
        self._run(self.census.run(), "census")
        self._run(self.measure.run(), "measure")
        self._run(self.breaker_episodes.run(), "breaker episodes")
        await self._until_done("serving", self.door.open)
        _settle_garbage_collector()
        log.info("pod %s serves", self._s.pod_name, extra={"event": Event.POD_READY})

    async def _until_done(self, condition: str, step: Callable[[], Awaitable[object]]) -> None:
        retry = AsyncRetrying(
            retry=retry_if_exception_type((StoreError, BusError)), wait=wait_exponential(0.05, max=1.0)
        )
        seldom = Seldom(time.monotonic)
        async for attempt in retry:
            with attempt:
                try:
                    await step()
                except (StoreError, BusError) as fault:
                    self.readiness.not_ok(condition, str(fault))
                    if (unsaid := seldom.due(str(fault))) is not None:
                        fields = {"event": Event.POD_NOT_READY, "unsaid": unsaid}
                        log.warning("not ready: %s", fault, extra=fields)
                    raise
        self.readiness.ok(condition)

    async def _open_store(self) -> None:
        await self.store.open()
        await self.store.meta.ensure()
        problems = await self.store.meta.check_server()
        if problems:
            raise StoreError("; ".join(problems))

    async def _open_bus(self) -> None:
        await self.publisher.start()
        await announce.listen(self.bus, lambda tenant_id, _revision: self.policies.announced(tenant_id))
        await workers.listen(self.bus, self.workers.heartbeat, self.workers.dead_letter)
        headers = {"router-pod": self._s.pod_name}
        fault = partial(_fault_reply, legacy_codes=self._s.legacy_error_codes)
        for subject, handler in (
            (
                subjects.GET_DECISION,
                GetDecision(
                    self.store.decisions,
                    self.store.tasks,
                    violated=partial(self.isolation.violated, Door.QUERY),
                    legacy_codes=self._s.legacy_error_codes,
                ),
            ),
            (subjects.BACKPRESSURE, self.backpressure),
            (f"{subjects.ADMIN}.*", self._admin()),
        ):
            self.services.append(await service.serve(self.bus, subject, "router", handler, fault, headers=headers))

    def _admin(self) -> Admin:
        store = self.store

        def operator(by: Actor) -> Operator:
            return Operator(store.levers, store.inspector, store.policies, by)

        def publisher(by: Actor) -> PolicyPublisher:
            return PolicyPublisher(store.policies, Announcements(self.bus), by, quotas(self._s))

        def purger(by: Actor) -> Purger:
            return Purger(store.tenants, store.levers, Announcements(self.bus), by, forget_ms=forget_ms(self._s))

        more = OperatorActs(operator).acts | PolicyActs(publisher).acts | TenantActs(purger, store.tenants).acts
        dry, tokens = self.dry_run.ask, admin_tokens(self._s)
        return Admin(
            self.policies,
            store.inspector,
            store.extensions,
            dry,
            tokens,
            store.levers,
            self.telemetry,
            more,
            legacy_codes=self._s.legacy_error_codes,
        )

    async def _watch_servers(self) -> None:
        """Waits for neither of them."""
        while True:
            await asyncio.sleep(1.0)
            self._look_at_servers()

    async def _every_second(self) -> None:
        seconds = 0
        while True:
            await asyncio.sleep(1.0)
            seconds += 1
            if seconds % _MEMORY_EVERY_S == 0:
                await self._look_at_memory()
            self.store.lanes.look()
            self.recent.look()
            self.workers.look()
            self.audit_watch.look()
            self.telemetry.in_flight.set(self.decide.in_flight)
            self.telemetry.nats_connected.set(int(self.bus.connected))
            for name, pull in zip(("result", "ack"), self.loops, strict=True):
                self.telemetry.consumer_lag.labels(name).set(pull.lag)
            if self.bus.connected:
                try:
                    self.telemetry.nats_rtt.set(await self.bus.rtt())
                except BusError as fault:
                    log.debug("no round trip to NATS: %s", fault)

    async def _look_at_memory(self) -> None:
        try:
            share = await self.store.meta.memory_share()
            self.telemetry.store_memory_share.set(share)
            self._memory.read(share)
        except StoreError as fault:
            log.debug("the store does not tell its memory: %s", fault)

    async def stop(self) -> None:
        """Drain and stop: what was accepted is answered, published or left to the other pods."""
        self._draining = True
        self.readiness.not_ok("serving", "draining")
        log.info("pod %s drains", self._s.pod_name, extra={"event": Event.POD_DRAINING})
        try:
            async with asyncio.timeout(self._s.drain_timeout_s):
                await self._drain()
        except TimeoutError:
            log.error("not everything was done in time; the other pods take over what is left")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.keeper.stop()
        await self.publisher.stop(1.0)
        await self.bus.close()
        await self.store.close()
        self._lag.stop()
        await asyncio.to_thread(self.tracing.close)
        await self.http.stop()
        log.info("pod %s has stopped", self._s.pod_name, extra={"event": Event.POD_STOPPED})

    async def _drain(self) -> None:
        await self.door.pause()
        await self.decide.drained()
        await self.dispatcher.drained()
        for one in self.services:
            await one.stop()
        await self.outage.stop()
        for pull in self.loops:
            await pull.stop()
        await self.publisher.flush(5.0)
        await self.outbox.drained()
        await self.finals.drained()
        await self.deferred.drained()
        await self.watch.drained()
        await self.unknown.flush()
        await self.unrecorded.flush()


def _settle_garbage_collector() -> None:
    """What the boot has made stays for good: the collector need not walk it again and again.

    Requests make little that is cyclic, so young collections may be rarer, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _named(work: Awaitable[None], name: str) -> None:
    current = asyncio.current_task()
    if current is not None:
        current.set_name(name)
    await work


def _fault_reply(code: str, message: str, *, legacy_codes: bool) -> bytes:
    details: JsonObject = {} if Code(code) is Code.INTERNAL else {"retry_after_ms": _BUSY_MS}
    return encode(Refused(Code(code), message, details), request_id=None, trace_id=None, legacy_codes=legacy_codes)
