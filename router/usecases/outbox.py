"""Usage on its way from the outbox in Redis into the stream: at least once, known by its usage_id, then cleared."""

import asyncio
import logging
from functools import partial

from router.domain.alert import FLEET, Condition
from router.domain.ids import to_text
from router.errors import StoreError
from router.ports import Publication, Publisher, TaskStore
from router.telemetry import Telemetry
from router.usecases.gate import AlertSink

log = logging.getLogger("router.outbox")

USAGE_SUBJECT = "beamline.usage.v1.metered"
MOST_A_LOOK = 256
# Looks in a row that found events of the look before: about half a minute.
LOOKS_UNTIL_ALERT = 15


class Outbox:
    """Publishes usage that settling has put down, and what a pod that died has left."""

    def __init__(self, tasks: TaskStore, publisher: Publisher, telemetry: Telemetry, alerts: AlertSink) -> None:
        self._tasks = tasks
        self._publisher = publisher
        self._telemetry = telemetry
        self._alerts = alerts
        self._looks_with_rest = 0
        self._on_the_way: set[bytes] = set()
        self._stored: list[bytes] = []
        self._seen: set[bytes] = set()
        self._clearing: asyncio.Task[None] | None = None

    def publish(self, usage_id: bytes, event: bytes) -> None:
        """Into the stream, with Msg-Id = usage_id; cleared from the outbox once it is there. Never raises."""
        if usage_id in self._on_the_way:
            return
        self._on_the_way.add(usage_id)
        self._publisher.publish(Publication(USAGE_SUBJECT, event, to_text(usage_id)), partial(self._done, usage_id))

    async def look(self) -> None:
        """Publish what has been in the outbox since the last look: its pod has died, or its publish failed.

        :raises StoreError: Redis did not answer.
        """
        waiting = await self._tasks.usage_waiting(MOST_A_LOOK)
        self._telemetry.usage_outbox.set(len(waiting))
        for one in waiting:
            if one.usage_id in self._seen:
                self.publish(one.usage_id, one.event)
        rest = self._seen & {one.usage_id for one in waiting}
        self._looks_with_rest = self._looks_with_rest + 1 if rest else 0
        if self._looks_with_rest >= LOOKS_UNTIL_ALERT:
            self._alerts.raise_(Condition.USAGE_NOT_DRAINING, FLEET, metadata={"waiting": len(waiting)})
        elif not waiting:
            self._alerts.resolve(Condition.USAGE_NOT_DRAINING, FLEET)
        self._seen = {one.usage_id for one in waiting}

    def _done(self, usage_id: bytes, stored: bool) -> None:
        if not stored:
            self._on_the_way.discard(usage_id)
            return
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
        if self._clearing is not None:
            await asyncio.wait([self._clearing])
