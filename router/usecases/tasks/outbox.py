"""Usage on its way from the outbox in Redis into the stream: at least once, known by its usage_id, then cleared.

The stream drops a repeat within its dedup window. An event that is older than half of it (its pod died before the
clearing, or Redis was away for long) is looked up in the stream before it is published again.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from router.domain.alert import FLEET, Condition
from router.domain.ids import to_text
from router.errors import BusError, StoreError
from router.ports.alerts import AlertSink
from router.ports.bus import History, Publication, Published, Publisher
from router.ports.tasks import TaskStore, UsageWaiting
from router.telemetry import Event, Telemetry
from router.wire import subjects
from router.wire.assignment import usage_facts

log = logging.getLogger("router.outbox")

MAX_A_LOOK = 256
# Looks in a row that found events of the look before: about half a minute.
LOOKS_UNTIL_ALERT = 15
# Between a pod's clock, which dates the event, and the server's, which dates the message.
CLOCKS_DIFFER_MS = 300_000


class Outbox:
    """Publishes what settling has put down and what a dead pod has left. `dedup_ms`: the stream's dedup window."""

    def __init__(
        self,
        tasks: TaskStore,
        publisher: Publisher,
        usage_log: History,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        dedup_ms: int,
        wall_ms: Callable[[], int],
    ) -> None:
        self._tasks = tasks
        self._publisher = publisher
        self._usage_log = usage_log
        self._telemetry = telemetry
        self._alerts = alerts
        self._old_ms = dedup_ms // 2
        self._wall_ms = wall_ms
        self._looks_with_rest = 0
        self._on_the_way: set[bytes] = set()
        self._stored: list[bytes] = []
        self._seen: set[bytes] = set()
        self._clearing: asyncio.Task[None] | None = None
        self._looking_up: asyncio.Task[None] | None = None

    def publish(self, usage_id: bytes, event: bytes) -> None:
        """Into the stream, with Msg-Id = usage_id; cleared from the outbox once it is there. Never raises."""
        if usage_id in self._on_the_way:
            return
        self._on_the_way.add(usage_id)
        self._publisher.publish(Publication(subjects.USAGE, event, to_text(usage_id)), partial(self._done, usage_id))

    async def poll(self) -> None:
        """Publish what has been in the outbox since the last look: its pod has died, or its publish failed.

        :raises StoreError: Redis did not answer.
        """
        left = await self._tasks.usage_left()
        self._telemetry.usage_reconciliation.set(left)
        waiting = await self._tasks.usage_waiting(MAX_A_LOOK) if left else []
        oldest_fresh_ms = self._wall_ms() - self._old_ms
        old: list[UsageWaiting] = []
        for one in waiting:
            if one.usage_id not in self._seen:
                continue
            if usage_facts(one.event).timestamp >= oldest_fresh_ms:
                self.publish(one.usage_id, one.event)
            elif one.usage_id not in self._on_the_way:
                old.append(one)
        if old and self._looking_up is None:
            self._looking_up = asyncio.get_running_loop().create_task(self._look_up(old))
        self._alert({one.usage_id for one in waiting}, left)

    def _alert(self, waiting: set[bytes], left: int) -> None:
        self._looks_with_rest = self._looks_with_rest + 1 if self._seen & waiting else 0
        if self._looks_with_rest >= LOOKS_UNTIL_ALERT:
            self._alerts.raise_(Condition.USAGE_NOT_DRAINING, FLEET, metadata={"waiting": left})
        elif not left:
            self._alerts.resolve(Condition.USAGE_NOT_DRAINING, FLEET)
        self._seen = waiting

    async def _look_up(self, old: list[UsageWaiting]) -> None:
        """Publish of these what the stream does not have; clear the others."""
        try:
            since_ms = min(usage_facts(one.event).timestamp for one in old) - CLOCKS_DIFFER_MS
            there = await self._usage_log.holds({to_text(one.usage_id) for one in old}, max(0, since_ms))
            for one in old:
                if to_text(one.usage_id) not in there:
                    self.publish(one.usage_id, one.event)
                elif one.usage_id not in self._on_the_way:
                    self._on_the_way.add(one.usage_id)
                    self._done(one.usage_id, Published.DUPLICATE)
        except BusError as fault:
            # Publishing without knowing could meter twice: they wait, and the alert says so.
            log.warning("old usage waits: its stream could not be read: %s", fault, extra={"event": Event.BUS_ERROR})
        finally:
            self._looking_up = None

    def _done(self, usage_id: bytes, outcome: Published) -> None:
        if not outcome:
            self._on_the_way.discard(usage_id)
            return
        if outcome is Published.DUPLICATE:
            self._telemetry.usage_duplicate.inc()
        self._stored.append(usage_id)
        if self._clearing is None:
            self._clearing = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        try:
            while self._stored:
                ids, self._stored = self._stored, []
                try:
                    cleared = await self._tasks.usage_published(ids)
                except StoreError as fault:
                    # They stay in the outbox and are published again; the stream drops the repeats.
                    log.warning("published usage could not be cleared from the outbox: %s", fault)
                else:
                    self._telemetry.usage_published.inc(cleared)
                self._on_the_way.difference_update(ids)
        finally:
            self._clearing = None

    async def drained(self) -> None:
        """Returns when what this pod publishes is cleared."""
        if self._looking_up is not None:
            self._looking_up.cancel()
            await asyncio.wait([self._looking_up])
        if self._clearing is not None:
            await asyncio.wait([self._clearing])
