"""The base that all parts of a pod share: metrics, NATS, Redis, the CP gate, and alerts about them."""

import time

from prometheus_client import CollectorRegistry

from router import __version__
from router.app.adapter_settings import bus_options, durable_consumers, stream_specs
from router.app.observers.permission_watch import PermissionWatch
from router.app.observers.store_watch import StoreWatch
from router.app.observers.stream_watch import StreamWatch
from router.app.store import Store, StoreHooks
from router.bus.client.connection import Bus
from router.bus.publishing.publisher import StreamPublisher
from router.bus.streams.keeper import StreamKeeper
from router.bus.streams.registry import Streams
from router.bus.streams.reply_subjects import ReplySubjects
from router.domain.alert import FLEET, Condition
from router.domain.degraded import Degradable
from router.domain.gate import Features
from router.domain.json import JsonObject
from router.domain.reply_refusal import PASSING
from router.edge.readiness import Readiness
from router.edge.state_file import MountedFile
from router.settings import Settings
from router.store.key_kinds import KEYS
from router.store.tenants.sample import OTHER
from router.telemetry import Telemetry
from router.tracing import Tracing
from router.usecases.alerts.alerts import Alerts
from router.usecases.alerts.thresholds import Unavailable
from router.usecases.audit.log_lines import AuditLines
from router.usecases.gate.gate import Gate, GateState
from router.usecases.gate.log import GateLog
from router.usecases.messages.isolation_violations import IsolationViolations
from router.usecases.messages.reply_subjects import ReplySubjectWatch
from router.usecases.tasks.push_gate import PushGate
from router.wire.alerts import encode_alert

_CONDITIONS = ("store", "policies", "bus", "streams", "serving")


def wall_ms() -> int:
    """Unix time in ms; for texts that people read, never for a decision."""
    return int(time.time() * 1000)


def _monotonic_ms() -> int:
    return int(time.monotonic() * 1000)


class Platform:
    """Builds the shared parts. Nothing is connected or runs before the pod starts it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = s = settings
        self.draining = False
        # Of the store's maxmemory; 0: no bound, or unknown.
        self.memory_share = 0.0
        self.telemetry = Telemetry(CollectorRegistry(), s.metrics_tenants, (*KEYS, OTHER))
        self.readiness = Readiness(
            _CONDITIONS,
            lambda ready: self.telemetry.ready.set(int(ready)),
            lambda part, off: self.telemetry.degraded.labels(part.value).set(int(off)),
        )
        self.bus = Bus(bus_options(s))
        self.streams = Streams(self.bus, stream_specs(s), durable_consumers(s))
        self.publisher = StreamPublisher(
            self.bus, self.streams, give_up_s=s.publish_timeout_s, on_stream_missing=self._stream_missing
        )
        self.audit_lines = AuditLines(s.audit_log_sample, self.now_ms)
        self.store_watch = StoreWatch(self.telemetry)
        hooks = StoreHooks(self.store_watch.hooks(), self.telemetry.audit_read_seconds.observe, self.audit_lines.moved)
        self.store = Store(s, hooks)
        self.audit_lines.script = self.store.script_version
        self.alerts = Alerts(
            publisher=self.publisher,
            epochs=self.store.epochs,
            encode=encode_alert,
            telemetry=self.telemetry,
            wall_ms=wall_ms,
            calm_ms=s.alert_calm_s * 1000,
        )
        self.isolation = IsolationViolations(self.telemetry, self.alerts)
        self.replies = ReplySubjects(
            s.reply_prefixes, ReplySubjectWatch(self.telemetry, self.alerts).refused, s.nats_js_api_prefix
        )
        self.push_gate = PushGate(self.alerts, self.streams.stream_of, self._dispatch_switched, time.monotonic)
        self.publisher.trouble.sink = self.push_gate
        self.stream_watch = StreamWatch(
            self.telemetry,
            self.readiness,
            self.alerts,
            optional=s.dispatch == "optional",
            on_missing=self.push_gate.missing,
        )
        self.permissions = PermissionWatch(
            bus=self.bus,
            readiness=self.readiness,
            alerts=self.alerts,
            push_gate=self.push_gate,
            telemetry=self.telemetry,
            streams=self.streams.specs,
            inboxes=s.reply_prefixes or PASSING,
            now_s=time.monotonic,
        )
        self.keeper = StreamKeeper(
            self.bus,
            self.streams,
            on_poll=self.stream_watch.checked,
            on_fault=self.stream_watch.failed,
            replies=self.replies,
            on_listed=self._streams_listed,
        )
        self._bus_totals()
        self._outage_rules()
        self._gate_parts()

    def _bus_totals(self) -> None:
        t = self.telemetry
        t.nats_dropped.read_from(lambda: self.bus.counters.slow_consumers)
        t.nats_connects.read_from(lambda: self.bus.counters.connects)
        t.publishes.read_from(lambda: self.publisher.stored, "stored")
        t.publishes.read_from(lambda: self.publisher.duplicates, "duplicate")
        t.publishes.read_from(lambda: self.publisher.failed, "failed")
        t.publishes.read_from(lambda: self.publisher.resent, "resent")
        t.publishes.read_from(lambda: self.publisher.published_core, "core")

    def _outage_rules(self) -> None:
        minimum = self.settings.alert_away_s
        self.store_watch.rule = Unavailable(self.alerts, Condition.STORE_AWAY, FLEET, minimum=minimum)
        self.store_watch.alerts = self.alerts
        self._bus_rule = Unavailable(self.alerts, Condition.BUS_AWAY, FLEET, minimum=minimum)
        self._bus_was_down = False
        self.bus.on_connect.append(self.alerts.retry_now)
        self.bus.on_disconnect.append(self._bus_down)

    def _gate_parts(self) -> None:
        s = self.settings
        self.tracing = (
            Tracing.off()
            if s.otlp_endpoint is None
            else Tracing.to(s.otlp_endpoint, pod=s.pod_name, version=__version__, sample_ratio=s.trace_sample_ratio)
        )
        self.gate_log = GateLog(self.store.levers, s.pod_name)
        self.gate = Gate(
            MountedFile(s.cp_state_path),
            self.telemetry,
            self.alerts,
            monotonic_ms=_monotonic_ms,
            wall_ms=wall_ms,
            grace_s=s.cp_grace_s,
            max_age_s=s.cp_max_age_s,
            changed=self._gate_changed,
        )

    def now_ms(self, tenant_id: str = "") -> int:
        """Estimated Redis time in ms, on the tenant's node."""
        return self.store.decisions.now_ms(tenant_id)

    def may_work(self) -> bool:
        """Whether to begin work that any pod can do; False while this pod drains."""
        return not self.draining

    def features(self) -> Features:
        """The features that the gate allows now."""
        return self.gate.features

    def gate_facts(self) -> JsonObject:
        """The state of the gate, for people."""
        path = self.settings.cp_state_path
        return {"file": None if path is None else str(path), **self.gate.state.facts}

    def tick(self) -> None:
        """Call once a second. Does not wait for Redis or NATS."""
        self.store_watch.tick()
        self.push_gate.tick()
        if not self.draining:
            self.permissions.tick()
        self._bus_rule.read(self._bus_was_down)
        self._bus_was_down = self._bus_was_down and not self.bus.connected

    def _streams_listed(self, fault: str | None) -> None:
        if fault is None:
            self.readiness.restore(Degradable.REPLY_STREAMS)
        else:
            why = f"$JS.API.STREAM.LIST: {fault}; allow this client to publish to it"
            self.readiness.degrade(Degradable.REPLY_STREAMS, why)

    def _dispatch_switched(self, reason: str | None) -> None:
        if reason is None:
            self.readiness.restore(Degradable.DISPATCH)
        else:
            self.readiness.degrade(Degradable.DISPATCH, reason)

    def _stream_missing(self) -> None:
        self.keeper.poll_soon()

    def _bus_down(self) -> None:
        self._bus_was_down = not self.draining

    def _gate_changed(self, state: GateState) -> None:
        self.gate_log.changed(state)
        self.tracing.set_enabled(state.fault is None)
        self.audit_lines.allow(state.fault is None)
