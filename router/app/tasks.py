"""What becomes of dispatched tasks: published, reported on, settled, told; and swept when nobody did."""

import os
import time
from functools import partial

from router.app.adapter_settings import decide_settings
from router.app.outage import StoreOutage
from router.app.platform import Ground, wall_ms
from router.app.policies import PolicyParts
from router.bus.consumer import PullLoop
from router.bus.history import StreamHistory
from router.bus.stream_specs import ConsumerSpec
from router.domain.alert import Condition
from router.ports.bus import Handle
from router.usecases.messages.deliveries import Careful, DeadLetters, Patience
from router.usecases.tasks.acks import Receipts
from router.usecases.tasks.attempts import Attempts
from router.usecases.tasks.dispatch import Dispatcher
from router.usecases.tasks.final_results import Finals
from router.usecases.tasks.fleet_workers import FleetWorkers
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.settle import Settle
from router.usecases.tasks.sweep import Sweeper
from router.usecases.tasks.task_effects import Endings
from router.usecases.tasks.unfinished import Unfinished
from router.wire import subjects

_HEADERS_BYTES = 16_384


class TaskParts:
    """See the module."""

    def __init__(self, ground: Ground, policies: PolicyParts) -> None:
        self._ground = ground
        s, t, store = ground.settings, ground.telemetry, ground.store
        self.dispatcher = Dispatcher(store.tasks, ground.publisher, t, ground.now_ms)
        self.finals = Finals(store.tasks, ground.publisher, ground.bus, t)
        self.workers = FleetWorkers(t, ground.alerts, time.monotonic)
        self.outbox = Outbox(
            store.tasks,
            ground.publisher,
            StreamHistory(ground.bus, s.stream_usage_name),
            t,
            ground.alerts,
            dedup_ms=s.stream_usage_dedup_s * 1000,
            wall_ms=wall_ms,
        )
        self.unfinished = Unfinished(
            store.tasks,
            store.decisions,
            store.claims,
            t,
            tombstone_ms=s.tombstone_ttl_s * 1000,
            random=os.urandom,
        )
        endings = Endings(
            store.tasks,
            self.finals,
            t,
            ground.alerts,
            tombstone_ms=s.tombstone_ttl_s * 1000,
            most_bytes=self._most_bytes,
        )
        self.sweeper = self._sweeper(policies, endings)
        endings.next_due = self.sweeper.soon
        self.loops = self._loops(policies, endings)
        self.outage = StoreOutage(self.loops, store.ping, t)
        ground.store_watch.on_away.append(self.outage.begin)

    def _most_bytes(self) -> int:
        return self._ground.bus.max_payload - _HEADERS_BYTES

    def _sweeper(self, policies: PolicyParts, endings: Endings) -> Sweeper:
        ground = self._ground
        store = ground.store
        attempts = Attempts(
            store.decisions,
            policies.cache,
            self.dispatcher,
            ground.features,
            decide_settings(ground.settings).deadlines,
            endings.give_up,
            policies.figures.snapshot,
        )
        return Sweeper(
            store.tasks,
            self.dispatcher,
            endings,
            self.outbox,
            attempts,
            self.unfinished,
            policies.cache,
            ground.telemetry,
            now_ms=ground.now_ms,
            may_work=lambda: ground.bus.connected and ground.may_work(),
        )

    def _loops(self, policies: PolicyParts, endings: Endings) -> dict[str, PullLoop]:
        """By the name of what they pull."""
        ground = self._ground
        s, t, store = ground.settings, ground.telemetry, ground.store
        letters = DeadLetters(
            ground.publisher,
            t,
            ground.alerts,
            keep_payload=s.dead_letter_payloads,
            most_bytes=self._most_bytes,
            wall_ms=wall_ms,
        )
        settle = Settle(
            store.tasks,
            store.decisions,
            policies.cache,
            self.outbox,
            letters,
            endings,
            t,
            ground.isolation,
            store.strikes,
            most_strikes=s.dead_letter_after,
            wall_ms=wall_ms,
        )
        receipts = Receipts(
            store.tasks,
            store.decisions,
            policies.cache,
            endings,
            letters,
            t,
            ground.isolation,
            store.strikes,
            most_strikes=s.dead_letter_after,
        )
        _, ack_spec, result_spec = ground.streams.consumers
        return {
            "result": self._loop("result", result_spec, settle.results, subjects.RESULT, letters),
            "ack": self._loop("ack", ack_spec, receipts.receive, subjects.ACK, letters),
        }

    def _loop(self, name: str, spec: ConsumerSpec, handle: Handle, subject: str, letters: DeadLetters) -> PullLoop:
        ground = self._ground
        patience = Patience(ground.store.strikes, f"{subject} bug", ground.settings.dead_letter_after)
        careful = Careful(handle, subject, letters, patience=patience, away=self._store_is_away)
        stalled = partial(ground.alerts.happened, Condition.CONSUMER_STALLED, name)
        loop = PullLoop(ground.bus, ground.streams, spec, careful, on_stall=stalled)
        ground.telemetry.redeliveries.read_from(lambda: loop.redelivered, name)
        ground.telemetry.consumer_stalls.read_from(lambda: loop.stalls, name)
        return loop

    def _store_is_away(self) -> None:
        self.outage.begin()

    @property
    def lag(self) -> int:
        """Messages that the consumers of the fleet have before them."""
        return sum(loop.lag for loop in self.loops.values())

    def look(self) -> None:
        """Call once a second."""
        self.workers.look()
        for name, loop in self.loops.items():
            self._ground.telemetry.consumer_lag.labels(name).set(loop.lag)

    async def drained(self) -> None:
        """Pull no more, and end what was begun."""
        await self.outage.stop()
        for loop in self.loops.values():
            await loop.stop()
        await self._ground.publisher.flush(5.0)
        await self.outbox.drained()
        await self.finals.drained()
