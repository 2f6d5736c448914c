"""The task parts of a pod: dispatch, acks, results, settling, final results, outbox and sweeper."""

import os
import time
from functools import partial

from router.app.adapter_settings import audit_identity, decide_settings
from router.app.outage import StoreOutage
from router.app.platform import Platform
from router.app.policies import PolicyParts
from router.bus.consuming.pull_loop import PullLoop
from router.bus.streams.history import StreamHistory
from router.bus.streams.specs import ConsumerSpec
from router.domain.alert import Condition
from router.ports.bus import Handle
from router.usecases.messages.deliveries import DeadLetters, FailureBudget, PoisonGuard
from router.usecases.tasks.acks import Acks
from router.usecases.tasks.attempts import Attempts
from router.usecases.tasks.dispatch import Dispatcher
from router.usecases.tasks.final_results import FinalKeep, FinalResults
from router.usecases.tasks.fleet_workers import FleetWorkers
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.repeats import Repeats
from router.usecases.tasks.result_probe import ResultProbe
from router.usecases.tasks.settle import ResultSettler
from router.usecases.tasks.sweep import Sweeper
from router.usecases.tasks.task_effects import TaskEffects
from router.usecases.tasks.undispatched import Undispatched
from router.usecases.tasks.unfinished import Unfinished
from router.wire import subjects

_HEADERS_BYTES = 16_384


class TaskParts:
    """Builds the task parts."""

    def __init__(self, platform: Platform, policies: PolicyParts) -> None:
        self._platform = platform
        s, t, store = platform.settings, platform.telemetry, platform.store
        self.dispatcher = Dispatcher(
            store.tasks, platform.publisher, t, platform.now_ms, late_ms=s.publish_timeout_s * 1000
        )
        keep = FinalKeep(keep_ms=s.final_keep_s * 1000, max_output_bytes=s.final_keep_bytes)
        self.final_results = FinalResults(
            store.tasks, platform.publisher, platform.bus, t, keep, memory_share=lambda: platform.memory_share
        )
        self.repeats = Repeats(store.tasks, platform.publisher, t, max_bytes=self._max_bytes)
        self.workers = FleetWorkers(t, platform.alerts, time.monotonic)
        self.outbox = Outbox(
            tasks=store.tasks,
            publisher=platform.publisher,
            usage_log=StreamHistory(platform.bus, s.stream_usage_name, subjects=(subjects.USAGE,)),
            telemetry=t,
            alerts=platform.alerts,
            dedup_ms=self._usage_dedup_ms,
            now_ms=platform.now_ms,
        )
        self.unfinished = Unfinished(
            store.tasks,
            store.decisions,
            store.claims,
            t,
            tombstone_ms=s.tombstone_ttl_s * 1000,
            random=os.urandom,
        )
        effects = TaskEffects(
            store.tasks,
            self.final_results,
            t,
            platform.alerts,
            tombstone_ms=s.tombstone_ttl_s * 1000,
            max_bytes=self._max_bytes,
        )
        self.undispatched = Undispatched(store.tasks, policies.cache, effects, t)
        self.dispatcher.on_undispatched = self.undispatched.end
        self.sweeper = self._sweeper(policies, effects)
        effects.next_due = self.sweeper.soon
        self.loops = self._loops(policies, effects)
        platform.permissions.loops = self.loops
        self.probe = self._probe(self.loops["result"])
        self.outage = StoreOutage(self.loops, store.ping, t)
        platform.store_watch.on_away.append(self.outage.begin)

    def _usage_dedup_ms(self) -> int:
        """The shorter of the setting and the stream's own window: the stream may have another owner."""
        s = self._platform.settings
        stored_s = self._platform.streams.dedup_s(s.stream_usage_name)
        return int(1000 * min(s.stream_usage_dedup_s, s.stream_usage_dedup_s if stored_s is None else stored_s))

    def _probe(self, results: PullLoop) -> ResultProbe:
        platform = self._platform
        probe = ResultProbe(
            platform.publisher,
            takes_probes=lambda: platform.bus.connected and platform.streams.stores(subjects.RESULT_PROBE),
            refusing=lambda: platform.push_gate.reason(results.spec.stream) is not None,
            received=lambda: results.received,
            pod=platform.settings.pod_name,
            now_s=time.monotonic,
        )
        self.sweeper.on_timed_out = self.workers.on_publish_error = probe.missed
        return probe

    def _max_bytes(self) -> int:
        return self._platform.bus.max_payload - _HEADERS_BYTES

    def _sweeper(self, policies: PolicyParts, effects: TaskEffects) -> Sweeper:
        platform = self._platform
        store = platform.store
        attempts = Attempts(
            decisions=store.decisions,
            policies=policies.cache,
            dispatcher=self.dispatcher,
            features=platform.features,
            deadlines=decide_settings(platform.settings).deadlines,
            give_up=effects.give_up,
            snapshot=policies.figures.snapshot,
            identity=audit_identity(platform.settings),
        )
        return Sweeper(
            tasks=store.tasks,
            dispatcher=self.dispatcher,
            effects=effects,
            outbox=self.outbox,
            attempts=attempts,
            unfinished=self.unfinished,
            policies=policies.cache,
            telemetry=platform.telemetry,
            now_ms=platform.now_ms,
            may_work=lambda: platform.bus.connected and platform.may_work(),
        )

    def _loops(self, policies: PolicyParts, effects: TaskEffects) -> dict[str, PullLoop]:
        """The pull loops by the name of their stream's content."""
        platform = self._platform
        s, t, store = platform.settings, platform.telemetry, platform.store
        self._dead_letters = dead_letters = DeadLetters(
            platform.publisher,
            t,
            platform.alerts,
            keep_payload=s.dead_letter_payloads,
            max_bytes=self._max_bytes,
        )
        settle = ResultSettler(
            tasks=store.tasks,
            decisions=store.decisions,
            policies=policies.cache,
            outbox=self.outbox,
            dead_letters=dead_letters,
            effects=effects,
            telemetry=t,
            isolation=platform.isolation,
            failures=store.failures,
            max_failures=s.dead_letter_after,
            by_name=s.results_by_name == "any",
        )
        acks = Acks(
            tasks=store.tasks,
            decisions=store.decisions,
            policies=policies.cache,
            effects=effects,
            dead_letters=dead_letters,
            telemetry=t,
            isolation=platform.isolation,
            failures=store.failures,
            max_failures=s.dead_letter_after,
        )
        _, ack_spec, result_spec = platform.streams.consumers
        return {
            "result": self._loop(
                name="result",
                spec=result_spec,
                handle=settle.settle_batch,
                subject=subjects.RESULT,
                dead_letters=dead_letters,
            ),
            "ack": self._loop(
                name="ack", spec=ack_spec, handle=acks.receive, subject=subjects.ACK, dead_letters=dead_letters
            ),
        }

    def _loop(self, name: str, spec: ConsumerSpec, handle: Handle, subject: str, dead_letters: DeadLetters) -> PullLoop:
        platform = self._platform
        budget = FailureBudget(platform.store.failures, f"{subject} bug", platform.settings.dead_letter_after)
        guarded = PoisonGuard(handle, subject, dead_letters, budget=budget, on_unavailable=self._store_unavailable)
        on_stall = partial(platform.alerts.occurred, Condition.CONSUMER_STALLED, name)
        loop = PullLoop(platform.bus, platform.streams, spec, guarded, on_stall=on_stall)
        platform.telemetry.redeliveries.read_from(lambda: loop.redelivered, name)
        platform.telemetry.consumer_stalls.read_from(lambda: loop.stalls, name)
        return loop

    def _store_unavailable(self) -> None:
        self.outage.begin()

    @property
    def lag(self) -> int:
        """The backlog of the fleet's result and ack consumers, in messages."""
        return sum(loop.lag for loop in self.loops.values())

    def tick(self) -> None:
        """Call once a second."""
        self.workers.tick()
        self._dead_letters.tick()
        self.probe.tick()
        for name, loop in self.loops.items():
            self._platform.telemetry.consumer_lag.labels(name).set(loop.lag)

    async def drained(self) -> None:
        """Stop pulling, and finish the work that has begun."""
        await self.outage.stop()
        for loop in self.loops.values():
            await loop.stop()
        self._dead_letters.tick(last=True)
        await self._platform.publisher.flush(5.0)
        await self.undispatched.drained()
        await self.outbox.drained()
        await self.final_results.drained()
        await self.repeats.drained()
