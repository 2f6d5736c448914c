"""Everything a pod is made of, and what the parts tell each other. Nothing runs before `pod.Pod.start`."""

import asyncio
import logging
import os
import time
from functools import partial

from prometheus_client import CollectorRegistry

from router import __version__
from router.app.hooks import Announcements, AuditWatch, CacheWatch, SeedWatch, StoreOutage, StoreWatch
from router.app.rooms import bus_options, cache_settings, decide_settings, quotas, stream_specs
from router.app.store import Store, StoreHooks
from router.bus import service
from router.bus.connection import Bus
from router.bus.consumer import PullLoop
from router.bus.decide_door import DecideDoor
from router.bus.extensions import BusExtensions
from router.bus.fleet import consumers
from router.bus.history import StreamHistory
from router.bus.keeper import StreamKeeper
from router.bus.publisher import StreamPublisher
from router.bus.stream_specs import ConsumerSpec, Ensured
from router.bus.streams import Streams
from router.domain.alert import FLEET, Condition, Door
from router.domain.json import JsonObject
from router.domain.policy import OnStoreError
from router.edge.audit_files import FileSink
from router.edge.http import HttpServer
from router.edge.pages import pages
from router.edge.readiness import Readiness
from router.edge.state_file import MountedFile
from router.settings import Settings
from router.store.census import OTHER, RedisSample
from router.store.keys import KEYS
from router.telemetry import Event, LoopLag, Telemetry
from router.tracing import Tracing
from router.usecases.alert_rules import Away, Level
from router.usecases.alerts import Alerts
from router.usecases.attempts import Attempts
from router.usecases.audit_lines import AuditLines
from router.usecases.breaker_episodes import BreakerEpisodes
from router.usecases.census import Census
from router.usecases.decide import Decide
from router.usecases.decision_quotas import DecisionQuotas, WithQuotas
from router.usecases.deferred import DeferredAudit
from router.usecases.deliveries import Careful, DeadLetters, Handle, Patience
from router.usecases.dispatch import Dispatcher
from router.usecases.dry_run import DryRun
from router.usecases.endings import Endings
from router.usecases.export_audit import AuditExport, Sink, StreamSink
from router.usecases.extended import Extended, Reach
from router.usecases.extension_watch import ExtensionWatch
from router.usecases.figures import LiveFigures
from router.usecases.finals import Finals
from router.usecases.fleet_workers import FleetWorkers
from router.usecases.gate import Gate, GateState
from router.usecases.gate_log import GateLog
from router.usecases.isolation import Isolation
from router.usecases.measure import Measure
from router.usecases.outbox import Outbox
from router.usecases.pipeline import Pipeline
from router.usecases.policies import PolicyCache
from router.usecases.policy_folder import FolderContents, read_folder
from router.usecases.queries import Backpressure, RecentLatency
from router.usecases.receipts import Receipts
from router.usecases.retention import Retention
from router.usecases.seed import Seeder, Source, StoreGuard
from router.usecases.settle import Settle
from router.usecases.sweep import Sweeper
from router.usecases.unfinished import Unfinished
from router.usecases.unknown_tenants import UnknownTenants
from router.usecases.unrecorded import Unrecorded
from router.wire import subjects
from router.wire.alerts import encode_alert

log = logging.getLogger("router.app")

_HEADERS_BYTES = 16_384
_CONDITIONS = ("store", "policies", "bus", "streams", "serving")


def _wall_ms() -> int:
    return int(time.time() * 1000)


def _monotonic_ms() -> int:
    return int(time.monotonic() * 1000)


class Parts:
    """Settings → parts. They know each other by what they were given here; a few tell the pod what they see."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings
        self._streams_fit = asyncio.Event()
        self.telemetry = Telemetry(CollectorRegistry(), settings.metrics_tenants, (*KEYS, OTHER))
        self._tasks: list[asyncio.Task[None]] = []
        self._bus_fell = False
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
        t.publishes.read_from(lambda: self.publisher.resent, "resent")
        t.publishes.read_from(lambda: self.publisher.published_core, "core")

    def _store_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.store_watch = StoreWatch(t, on_away=self._store_is_away, on_back=self._store_is_back)
        self.audit_lines = AuditLines(s.audit_log_sample, self._redis_now_ms)
        hooks = StoreHooks(self.store_watch.hooks(), t.audit_read_seconds.observe, self.audit_lines.moved)
        self.store = Store(s, hooks)
        self.audit_lines.script = self.store.script_version
        self.alerts = Alerts(
            self.publisher, self.store.epochs, encode_alert, t, _wall_ms, calm_ms=s.alert_calm_s * 1000
        )
        self.store_watch.rule = Away(self.alerts, Condition.STORE_AWAY, FLEET, least=s.alert_away_s)
        self._bus_rule = Away(self.alerts, Condition.BUS_AWAY, FLEET, least=s.alert_away_s)
        self.isolation = Isolation(t, self.alerts)
        self._memory = Level(self.alerts, Condition.STORE_MEMORY, FLEET, raise_at=0.9, clear_at=0.8)
        sample = RedisSample(self.store.keys, self.store.nodes, s.pod_name)
        self.census = Census(
            sample,
            t,
            self.alerts,
            most_bytes=s.store_kind_max_bytes,
            may_work=lambda: not self._draining,
        )
        self.breaker_episodes = BreakerEpisodes(
            self.store.epochs, self.store.inspector, self.alerts, may_work=lambda: not self._draining
        )
        self.deferred = DeferredAudit(self.store.tasks, t)
        self.unrecorded = Unrecorded(self.store.tasks, t)
        self._audit_parts(s)
        cache_watch = CacheWatch(t, s.metrics_tenants)
        cache_watch.served = self.retention.served
        quotas_of_decisions = DecisionQuotas(s.quota_requests, s.quota_audit_rate)
        self.policies = PolicyCache(
            WithQuotas(self.store.policies, quotas_of_decisions, OnStoreError(s.on_store_error)),
            cache_watch,
            cache_settings(s),
            clock=time.monotonic,
            unreadable=self.store.policies.unreadable,
        )
        cache_watch.read(self.policies)
        self.measure = Measure(
            self.store.measure, self.policies.held, sample.lead, t, may_work=lambda: not self._draining
        )
        read = partial(read_folder, s.policy_dir) if s.policy_dir is not None else FolderContents
        self.guard = StoreGuard(
            self.store.policies,
            self.store.meta,
            Seeder(self.store.policies, read, Announcements(self.bus), quotas(s)),
            SeedWatch(t, self.alerts),
            source=Source(s.policy_source),
            reload=self.policies.announced,
            reload_all=self.policies.announced_all,
        )
        cache_watch.suspect = self.guard.suspect

    def _audit_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.audit_watch = AuditWatch(
            t, self.alerts, append_slow_ms=s.audit_append_slow_ms, read_slow_ms=s.audit_read_slow_ms
        )
        self.unknown = UnknownTenants(self.store.unknown, t)
        sinks: list[Sink] = []
        if s.audit_export_subject is not None:
            sinks.append(StreamSink(self.publisher, s.audit_export_subject))
        if s.audit_export_dir is not None:
            sinks.append(FileSink(s.audit_export_dir))
        self.retention = Retention(
            self.store.retention,
            t,
            self.alerts,
            max_len=s.audit_max_len,
            export=AuditExport(self.store.audit, self.store.retention, sinks, t, allowed=lambda: self.gate.is_open),
            may_work=lambda: not self._draining,
        )

    def _decide_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.tracing = (
            Tracing.off()
            if s.otlp_endpoint is None
            else Tracing.to(s.otlp_endpoint, pod=s.pod_name, version=__version__, sample_ratio=s.trace_sample_ratio)
        )
        self.gate_log = GateLog(self.store.levers, s.pod_name)
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
        self.figures = LiveFigures(self.store.figures, t, clock=time.monotonic)
        self.dispatcher = Dispatcher(self.store.tasks, self.publisher, t, self.store.decisions.now_ms)
        self.watch = ExtensionWatch(
            self.store.extensions, t, self.alerts, now_ms=lambda: self.store.decisions.now_ms(""), random=os.urandom
        )
        self.unfinished = Unfinished(
            self.store.tasks,
            self.store.decisions,
            self.store.claims,
            t,
            tombstone_ms=s.tombstone_ttl_s * 1000,
            random=os.urandom,
        )
        reach = Reach(
            self.store.decisions,
            self.store.tasks,
            self.store.claims,
            self.unfinished,
            Pipeline(BusExtensions(self.bus), self.watch, t),
        )
        self.decide = Decide(
            self.store.decisions,
            self.policies,
            lambda: self.gate.features,
            self.dispatcher,
            t,
            decide_settings(s),
            degraded_made=self.deferred.made,
            tracing=self.tracing,
            snapshot=self.figures.snapshot,
            extensions=Extended(reach, t, most_ms=s.pipeline_deadline_ms, most=s.pipelines_max),
            unknown=self.unknown.refused,
            unrecorded=self.unrecorded.refused,
            violated=partial(self.isolation.violated, Door.DECIDE),
            audit_lines=self.audit_lines,
        )
        self.dry_run = DryRun(
            self.store.decisions, lambda: self.gate.features, decide_settings(s), self.figures.snapshot
        )
        self.door = DecideDoor(self.bus, self.decide.handle, s.pod_name)

    def _task_parts(self, s: Settings) -> None:
        t = self.telemetry
        letters = DeadLetters(
            self.publisher,
            t,
            self.alerts,
            keep_payload=s.dead_letter_payloads,
            most_bytes=lambda: self.bus.max_payload - _HEADERS_BYTES,
            wall_ms=_wall_ms,
        )
        self.outbox = Outbox(
            self.store.tasks,
            self.publisher,
            StreamHistory(self.bus, s.stream_usage_name),
            t,
            self.alerts,
            dedup_ms=s.stream_usage_dedup_s * 1000,
            wall_ms=_wall_ms,
        )
        self.finals = Finals(self.store.tasks, self.publisher, self.bus, t)
        endings = Endings(
            self.store.tasks,
            self.finals,
            t,
            self.alerts,
            tombstone_ms=s.tombstone_ttl_s * 1000,
            most_bytes=lambda: self.bus.max_payload - _HEADERS_BYTES,
        )
        settle = Settle(
            self.store.tasks,
            self.store.decisions,
            self.policies,
            self.outbox,
            letters,
            endings,
            t,
            self.isolation,
            self.store.strikes,
            most_strikes=s.dead_letter_after,
            wall_ms=_wall_ms,
        )
        receipts = Receipts(
            self.store.tasks,
            self.store.decisions,
            self.policies,
            endings,
            letters,
            t,
            self.isolation,
            self.store.strikes,
            most_strikes=s.dead_letter_after,
        )
        attempts = Attempts(
            self.store.decisions,
            self.policies,
            self.dispatcher,
            lambda: self.gate.features,
            decide_settings(s).deadlines,
            endings.give_up,
            self.figures.snapshot,
        )
        _, ack_spec, result_spec = self.streams.consumers
        self.loops = [
            self._loop("result", result_spec, settle.results, subjects.RESULT, letters),
            self._loop("ack", ack_spec, receipts.receive, subjects.ACK, letters),
        ]
        self.workers = FleetWorkers(t, self.alerts, time.monotonic)
        self.outage = StoreOutage(self.loops, self.store.ping, t)
        for name, pull in zip(("result", "ack"), self.loops, strict=True):
            t.redeliveries.read_from(partial(getattr, pull, "redelivered"), name)
            t.consumer_stalls.read_from(partial(getattr, pull, "stalls"), name)
        self.sweeper = Sweeper(
            self.store.tasks,
            self.dispatcher,
            endings,
            self.outbox,
            attempts,
            self.unfinished,
            self.policies,
            t,
            now_ms=self.store.decisions.now_ms,
            may_work=lambda: self.bus.connected and not self._draining,
        )
        endings.next_due = self.sweeper.soon

    def _loop(self, name: str, spec: ConsumerSpec, handle: Handle, subject: str, letters: DeadLetters) -> PullLoop:
        patience = Patience(self.store.strikes, f"{subject} bug", self._s.dead_letter_after)
        careful = Careful(handle, subject, letters, patience=patience, away=self._store_is_away)
        return PullLoop(self.bus, self.streams, spec, careful, on_stall=partial(self._stalled, name))

    def _edge_parts(self, s: Settings) -> None:
        t = self.telemetry
        self.recent = RecentLatency(t.latency.counts, t.latency.bounds_ms)
        self.backpressure = Backpressure(
            lambda: sum(pull.lag for pull in self.loops), self.recent, lambda: self.decide.in_flight, _wall_ms
        )
        self.http = HttpServer(
            pages(s.pod_name, __version__, self.readiness, t, self.backpressure.active, self._gate_facts)
        )
        self.services: list[service.Service] = []

    def _ready_changed(self, ready: bool) -> None:
        self.telemetry.ready.set(int(ready))

    def _gate_facts(self) -> JsonObject:
        path = self._s.cp_state_path
        return {"file": None if path is None else str(path), **self.gate.state.facts}

    def _gate_changed(self, state: GateState) -> None:
        self.gate_log.changed(state)
        self.tracing.set_enabled(state.fault is None)
        self.audit_lines.allow(state.fault is None)

    def _redis_now_ms(self, tenant_id: str) -> int:
        return self.store.decisions.now_ms(tenant_id)

    def _store_is_away(self) -> None:
        self.outage.begin()

    def _store_is_back(self) -> None:
        self.deferred.store_is_back()

    def _bus_up(self) -> None:
        self.alerts.nudge()
        self.policies.announced_all()

    def _bus_down(self) -> None:
        self._bus_fell = not self._draining

    def _look_at_servers(self) -> None:
        """Call once a second."""
        self.store_watch.look()
        self._bus_rule.read(self._bus_fell)
        self._bus_fell = self._bus_fell and not self.bus.connected

    def _looked(self, ensured: Ensured, covered: dict[str, list[str]]) -> None:
        self.telemetry.stream_differences.set(len(ensured.differences))
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
