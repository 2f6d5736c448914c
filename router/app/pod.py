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

from prometheus_client import CollectorRegistry
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from router import __version__
from router.app.hooks import Announcements, CacheWatch, SeedWatch, StoreWatch
from router.app.rooms import bus_options, cache_settings, decide_settings, reading_tokens, secrets_of, stream_specs
from router.app.store import Store
from router.bus import announce, service, workers
from router.bus.connection import Bus
from router.bus.consumer import PullLoop
from router.bus.decide_door import DecideDoor
from router.bus.fleet import consumers
from router.bus.keeper import StreamKeeper
from router.bus.publisher import StreamPublisher
from router.bus.stream_specs import Ensured
from router.bus.streams import Streams
from router.domain.alert import FLEET, Condition
from router.domain.decision import Code, Refused
from router.edge.http import HttpServer
from router.edge.pages import pages
from router.edge.readiness import Readiness
from router.edge.state_file import MountedFile
from router.errors import BusError, StartupRefused, StoreError
from router.logs import configure
from router.settings import Settings
from router.telemetry import Event, LoopLag, Telemetry
from router.tracing import Tracing
from router.usecases.admin import Admin
from router.usecases.alerts import Alerts, Level
from router.usecases.attempts import Attempts
from router.usecases.decide import Decide
from router.usecases.deferred import DeferredAudit
from router.usecases.deliveries import DeadLetters
from router.usecases.dispatch import Dispatcher
from router.usecases.gate import Gate, GateState
from router.usecases.outbox import Outbox
from router.usecases.policies import PolicyCache
from router.usecases.policy_folder import FolderContents, read_folder
from router.usecases.queries import Backpressure, GetDecision, RecentLatency
from router.usecases.receipts import Receipts
from router.usecases.seed import Seeder, Source, StoreGuard
from router.usecases.settle import Settle
from router.usecases.sweep import Sweeper
from router.wire import subjects
from router.wire.alerts import encode_alert
from router.wire.problems import Rejected
from router.wire.reply import encode
from router.wire.workers import decode_heartbeat

log = logging.getLogger("router.app")

_CONDITIONS = ("store", "policies", "bus", "streams", "serving")
_BUS_AWAY_S = 2.0
_MEMORY_EVERY_S = 15


def _wall_ms() -> int:
    return int(time.time() * 1000)


def _monotonic_ms() -> int:
    return int(time.monotonic() * 1000)


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


class Pod:
    """All parts of a running pod."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings
        self._streams_fit = asyncio.Event()
        self.telemetry = Telemetry(CollectorRegistry(), settings.metrics_tenants)
        self._tasks: list[asyncio.Task[None]] = []
        self.readiness = Readiness(_CONDITIONS, self._ready_changed)
        self._lag = LoopLag(self.telemetry.loop_lag)
        self._bus_parts(settings)
        self._store_parts(settings)
        self._decide_parts(settings)
        self._task_parts(settings)
        self._edge_parts(settings)
        self._draining = False

    def _bus_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.bus = Bus(bus_options(s))
        own = consumers(assign=s.stream_assign_name, ack=s.stream_ack_name, result=s.stream_result_name)
        self.streams = Streams(self.bus, stream_specs(s), own)
        self.publisher = StreamPublisher(
            self.bus, self.streams, on_uncovered=self._uncovered, on_stream_missing=self._stream_missing
        )
        self.keeper = StreamKeeper(self.bus, self.streams, on_look=self._looked)
        self.bus.on_connect.append(self._bus_up)
        self.bus.on_disconnect.append(self._bus_down)
        t.nats_dropped.read_from(lambda: self.bus.counters.slow_consumers)
        t.nats_connects.read_from(lambda: self.bus.counters.connects)
        t.publishes.read_from(lambda: self.publisher.stored, "stored")
        t.publishes.read_from(lambda: self.publisher.duplicates, "duplicate")
        t.publishes.read_from(lambda: self.publisher.failed, "failed")

    def _store_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.store_watch = StoreWatch(t, on_back=self._store_is_back)
        self.store = Store(s, self.store_watch.hooks())
        self.alerts = Alerts(self.publisher, self.store.epochs, encode_alert, t, _wall_ms)
        self.store_watch.alerts = self.alerts
        self._memory = Level(self.alerts, Condition.STORE_MEMORY, FLEET, raise_at=0.9, clear_at=0.8)
        self.deferred = DeferredAudit(self.store.tasks, t)
        cache_watch = CacheWatch(t)
        self.policies = PolicyCache(
            self.store.policies,
            cache_watch,
            cache_settings(s),
            clock=time.monotonic,
            unreadable=self.store.policies.unreadable,
        )
        read = partial(read_folder, s.policy_dir) if s.policy_dir is not None else FolderContents
        self.guard = StoreGuard(
            self.store.policies,
            self.store.meta,
            Seeder(self.store.policies, read, Announcements(self.bus)),
            SeedWatch(t, self.alerts),
            source=Source(s.policy_source),
            reload=self.policies.announced,
            reload_all=self.policies.announced_all,
        )
        cache_watch.suspect = self.guard.suspect

    def _decide_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.tracing = (
            Tracing.off()
            if s.otlp_endpoint is None
            else Tracing.to(s.otlp_endpoint, pod=s.pod_name, version=__version__, sample_ratio=s.trace_sample_ratio)
        )
        self.gate = Gate(
            MountedFile(s.cp_state_path),
            t,
            self.alerts,
            monotonic_ms=_monotonic_ms,
            wall_ms=_wall_ms,
            grace_s=s.cp_grace_s,
            max_age_s=s.cp_max_age_s,
            changed=self._gate_changed,
        )
        self.dispatcher = Dispatcher(self.store.tasks, self.publisher, t, self.store.decisions.now_ms)
        self.decide = Decide(
            self.store.decisions,
            self.policies,
            lambda: self.gate.features,
            self.dispatcher,
            t,
            decide_settings(s),
            degraded_made=self.deferred.made,
            tracing=self.tracing,
        )
        self.door = DecideDoor(self.bus, self.decide.handle, s.pod_name)

    def _task_parts(self, s: Settings) -> None:
        t = self.telemetry
        tombstone_ms = s.tombstone_ttl_s * 1000
        letters = DeadLetters(self.publisher, t, self.alerts, keep_payload=s.dead_letter_payloads, wall_ms=_wall_ms)
        self.outbox = Outbox(self.store.tasks, self.publisher, t, self.alerts)
        self.settle = Settle(
            self.store.tasks,
            self.store.decisions,
            self.policies,
            self.outbox,
            letters,
            self._core_send,
            t,
            self.alerts,
            tombstone_ms=tombstone_ms,
            wall_ms=_wall_ms,
        )
        receipts = Receipts(
            self.store.tasks,
            self.store.decisions,
            self.policies,
            self.settle,
            letters,
            t,
            self.alerts,
            tombstone_ms=tombstone_ms,
        )
        attempts = Attempts(
            self.store.decisions,
            self.policies,
            self.dispatcher,
            lambda: self.gate.features,
            decide_settings(s).deadlines,
            self.settle.give_up,
        )
        _, ack_spec, result_spec = self.streams.consumers
        self.loops = [
            PullLoop(
                self.bus, self.streams, result_spec, self.settle.results, on_stall=partial(self._stalled, "result")
            ),
            PullLoop(self.bus, self.streams, ack_spec, receipts.receive, on_stall=partial(self._stalled, "ack")),
        ]
        for name, pull in zip(("result", "ack"), self.loops, strict=True):
            t.redeliveries.read_from(partial(getattr, pull, "redelivered"), name)
            t.consumer_stalls.read_from(partial(getattr, pull, "stalls"), name)
        self.sweeper = Sweeper(
            self.store.tasks,
            self.dispatcher,
            self.settle,
            self.outbox,
            attempts,
            self.policies,
            t,
            tombstone_ms=tombstone_ms,
            now_ms=self.store.decisions.now_ms,
            may_work=lambda: self.bus.connected and not self._draining,
        )
        self.settle.next_due = self.sweeper.soon

    def _edge_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.recent = RecentLatency(t.latency.counts, t.latency.bounds_ms)
        self.backpressure = Backpressure(
            lambda: sum(pull.lag for pull in self.loops), self.recent, lambda: self.decide.in_flight, _wall_ms
        )
        self.http = HttpServer(pages(s.pod_name, __version__, self.readiness, t, self.backpressure.active))
        self.services: list[service.Service] = []

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
        while not await self.bus.wait_connected(_BUS_AWAY_S):
            self.readiness.not_ok("bus", "NATS does not answer; see the log")
        await self._until_done("bus", self._open_bus)
        # Before the streams are looked at: a stream that must not be there is an alert, and the boot waits for its end.
        self._run(self.alerts.run(), "alerts")
        await self.keeper.start()
        await self._streams_fit.wait()
        for pull in self.loops:
            await pull.start()
        self._run(self.sweeper.run(), "sweeper")
        await self._until_done("serving", self.door.open)
        _settle_garbage_collector()
        log.info("pod %s serves", self._s.pod_name, extra={"event": Event.POD_READY})

    async def _until_done(self, condition: str, step: Callable[[], Awaitable[object]]) -> None:
        retry = AsyncRetrying(
            retry=retry_if_exception_type((StoreError, BusError)), wait=wait_exponential(0.05, max=1.0)
        )
        async for attempt in retry:
            with attempt:
                try:
                    await step()
                except (StoreError, BusError) as fault:
                    self.readiness.not_ok(condition, str(fault))
                    log.warning("not ready: %s", fault, extra={"event": Event.POD_NOT_READY})
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
        await workers.listen(self.bus, self._heartbeat, self._worker_dead_letter)
        headers = {"router-pod": self._s.pod_name}
        for subject, handler in (
            (
                subjects.GET_DECISION,
                GetDecision(self.store.decisions, self.store.tasks, legacy_codes=self._s.legacy_error_codes),
            ),
            (subjects.BACKPRESSURE, self.backpressure),
            (f"{subjects.ADMIN}.*", Admin(self.policies, self.store.inspector, reading_tokens(self._s))),
        ):
            self.services.append(
                await service.serve(self.bus, subject, "router", handler, _fault_reply, headers=headers)
            )

    async def _every_second(self) -> None:
        seconds = 0
        while True:
            await asyncio.sleep(1.0)
            seconds += 1
            if seconds % _MEMORY_EVERY_S == 0:
                await self._look_at_memory()
            self.recent.look()
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
            self._memory.read(await self.store.meta.memory_share())
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
        for pull in self.loops:
            await pull.stop()
        await self.publisher.flush(5.0)
        await self.outbox.drained()
        await self.deferred.drained()

    def _ready_changed(self, ready: bool) -> None:
        self.telemetry.ready.set(int(ready))

    def _gate_changed(self, state: GateState) -> None:
        self.tracing.set_enabled(state.fault is None)

    def _store_is_back(self) -> None:
        self.deferred.store_is_back()

    def _bus_up(self) -> None:
        self.alerts.resolve(Condition.BUS_AWAY, FLEET)
        self.alerts.nudge()
        self.policies.announced_all()

    def _bus_down(self) -> None:
        if not self._draining:
            self.alerts.raise_(Condition.BUS_AWAY, FLEET)

    def _looked(self, _ensured: Ensured, covered: dict[str, list[str]]) -> None:
        if not covered:
            self.readiness.ok("streams")
            self._streams_fit.set()
            self.alerts.resolve(Condition.STREAM_COVERS_REQUESTS, FLEET)
            return
        names = sorted({name for streams in covered.values() for name in streams})
        why = f"stream {', '.join(names)} covers {', '.join(covered)}: narrow it, or its acks reach callers first"
        self.readiness.not_ok("streams", why)
        self.alerts.raise_(Condition.STREAM_COVERS_REQUESTS, FLEET, why, {"streams": list(names)})

    def _uncovered(self, subject: str) -> None:
        log.warning(
            "no stream covers %s: published core, the deadline is the guarantee",
            subject,
            extra={"event": Event.PUBLISHED_CORE},
        )

    def _stream_missing(self) -> None:
        self.keeper.look_soon()

    def _stalled(self, name: str) -> None:
        self.alerts.happened(Condition.CONSUMER_STALLED, name)

    def _core_send(self, subject: str, payload: bytes) -> None:
        try:
            self.bus.publish(subject, payload)
        except BusError as fault:
            log.warning("a final result was not sent to its caller: %s", fault)

    def _heartbeat(self, data: bytes, _headers: object) -> None:
        beat = decode_heartbeat(data)
        if not isinstance(beat, Rejected):
            self.telemetry.worker_heartbeats.labels(beat.status.value).inc()

    def _worker_dead_letter(self, _data: bytes, _headers: object) -> None:
        self.telemetry.dead_letters.labels("worker").inc()
        self.alerts.happened(Condition.DEAD_LETTERS, "caf.deadletter.v1")


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


def _fault_reply(code: str, message: str) -> bytes:
    return encode(Refused(Code(code), message), request_id=None, trace_id=None)
