"""Publication of usage events from the Redis outbox into the USAGE stream.

    settled: event in the outbox → published with Msg-Id = usage_id → stored by the stream → deleted from the outbox

Delivery is at least once, and the stream drops repeats within its dedup window. An event older than half that window
(its pod died, or Redis was unavailable for long) is looked up in the stream before it is published again.
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
from router.ports.tasks import OutboxEntry, TaskStore
from router.telemetry import Event, Telemetry
from router.wire import subjects
from router.wire.assignment import usage_identity

log = logging.getLogger("router.outbox")

MAX_PER_POLL = 256
# Number of polls in a row that leave events of the poll before: about half a minute.
POLLS_UNTIL_ALERT = 15
# Allowed difference between Redis time, which dates the event, and the NATS server's clock, which dates the message.
MAX_CLOCK_SKEW_MS = 300_000


class Outbox:
    """Publishes the usage that this pod settles and the usage that other pods left behind.

    `dedup_ms`: the stream's dedup window now. `now_ms`: Redis time for a tenant.
    """

    def __init__(
        self,
        tasks: TaskStore,
        publisher: Publisher,
        usage_log: History,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        dedup_ms: Callable[[], int],
        now_ms: Callable[[str], int],
    ) -> None:
        self._tasks = tasks
        self._publisher = publisher
        self._usage_log = usage_log
        self._telemetry = telemetry
        self._alerts = alerts
        self._dedup_ms = dedup_ms
        self._now_ms = now_ms
        self._polls_with_leftovers = 0
        self._in_flight: set[bytes] = set()
        self._stored: list[bytes] = []
        self._last_waiting: set[bytes] = set()
        self._clearing: asyncio.Task[None] | None = None
        self._looking_up: asyncio.Task[None] | None = None

    def publish(self, usage_id: bytes, event: bytes) -> None:
        """Publish an event with Msg-Id = usage_id; delete it from the outbox once the stream has it. Never raises."""
        if usage_id in self._in_flight:
            return
        self._in_flight.add(usage_id)
        self._publisher.publish(Publication(subjects.USAGE, event, to_text(usage_id)), partial(self._done, usage_id))

    async def poll(self) -> None:
        """Publish events that were in the outbox at the last poll too: their pod died, or their publish failed.

        :raises StoreError: Redis did not answer.
        """
        left = await self._tasks.usage_left()
        self._telemetry.usage_reconciliation.set(left)
        waiting = await self._tasks.usage_waiting(MAX_PER_POLL) if left else []
        fresh_ms = self._dedup_ms() // 2
        old: list[OutboxEntry] = []
        for usage in waiting:
            if usage.usage_id not in self._last_waiting:
                continue
            identity = usage_identity(usage.event)
            if identity.timestamp >= self._now_ms(identity.tenant_id) - fresh_ms:
                self.publish(usage.usage_id, usage.event)
            elif usage.usage_id not in self._in_flight:
                old.append(usage)
        if old and self._looking_up is None:
            self._looking_up = asyncio.get_running_loop().create_task(self._look_up(old))
        self._alert({usage.usage_id for usage in waiting}, left)

    def _alert(self, waiting: set[bytes], left: int) -> None:
        self._polls_with_leftovers = self._polls_with_leftovers + 1 if self._last_waiting & waiting else 0
        if self._polls_with_leftovers >= POLLS_UNTIL_ALERT:
            self._alerts.raise_(Condition.USAGE_NOT_DRAINING, FLEET, metadata={"waiting": left})
        elif not left:
            self._alerts.resolve(Condition.USAGE_NOT_DRAINING, FLEET)
        self._last_waiting = waiting

    async def _look_up(self, old: list[OutboxEntry]) -> None:
        """Publish the events that the stream does not have; delete the others from the outbox."""
        try:
            since_ms = min(usage_identity(usage.event).timestamp for usage in old) - MAX_CLOCK_SKEW_MS
            stored = await self._usage_log.stored_ids({to_text(usage.usage_id) for usage in old}, max(0, since_ms))
            for usage in old:
                if to_text(usage.usage_id) not in stored:
                    self.publish(usage.usage_id, usage.event)
                elif usage.usage_id not in self._in_flight:
                    self._in_flight.add(usage.usage_id)
                    self._done(usage.usage_id, Published.DUPLICATE)
        except BusError as fault:
            # A blind publish could meter the usage twice. The events wait, and an alert reports them.
            log.warning("stream of usage cannot be read, old usage waits: %s", fault, extra={"event": Event.BUS_ERROR})
        finally:
            self._looking_up = None

    def _done(self, usage_id: bytes, outcome: Published) -> None:
        if not outcome:
            self._in_flight.discard(usage_id)
            return
        if outcome is Published.DUPLICATE:
            self._telemetry.usage_duplicate.inc()
        self._stored.append(usage_id)
        if self._clearing is None:
            self._clearing = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        try:
            while self._stored:
                usage_ids, self._stored = self._stored, []
                try:
                    cleared = await self._tasks.usage_published(usage_ids)
                except StoreError as fault:
                    # The events stay in the outbox and are published again; the stream drops the repeats.
                    log.warning("published usage could not be deleted from the outbox: %s", fault)
                else:
                    self._telemetry.usage_published.inc(cleared)
                self._in_flight.difference_update(usage_ids)
        finally:
            self._clearing = None

    async def drained(self) -> None:
        """Wait until this pod's published events are deleted from the outbox; cancel a running look-up."""
        if self._looking_up is not None:
            self._looking_up.cancel()
            await asyncio.wait([self._looking_up])
        if self._clearing is not None:
            await asyncio.wait([self._clearing])
