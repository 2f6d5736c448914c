"""Publication of final results to the callers who asked for them.

    task ended, final result stored in the same move → published → flushed to the server → cut, kept for repeats
                                                  └─ the pod died: due after 5 s, any pod publishes it

Delivery is at least once, and every copy is the stored result. A stream drops repeats by the message id
`<task_id>:final`; a caller on a plain subject may receive two copies. Without a stream, a result counts as published
when the NATS server has read it: core NATS confirms nothing more.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from router.domain.ids import to_text
from router.domain.tasks.task import Final
from router.errors import BusError, StoreError
from router.ports.bus import Line, Publication, Published, Publisher
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.wire.assignment import final_result_to_keep

log = logging.getLogger("router.finals")


FULL = 0.8
"""Share of the store's maxmemory above which no output is kept."""


class FinalKeep(Struct, frozen=True, kw_only=True):
    """How long the end of a task is kept for repeats (0: not at all), and the largest output that is kept with it."""

    keep_ms: int = 600_000
    max_output_bytes: int = 4_096


DEFAULT_KEEP = FinalKeep()


class FinalResults:
    """Publishes final results to their callers, one publish per task at a time in this pod.

    `memory_share`: used memory as a share of the store's maxmemory, a few seconds old.
    """

    def __init__(
        self,
        tasks: TaskStore,
        publisher: Publisher,
        line: Line,
        telemetry: Telemetry,
        keep: FinalKeep = DEFAULT_KEEP,
        *,
        memory_share: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._tasks = tasks
        self._publisher = publisher
        self._line = line
        self._keep = keep
        self._memory_share = memory_share
        self._counts = telemetry.final_results
        self._in_flight: set[bytes] = set()
        self._published: list[tuple[bytes, Final, int]] = []
        self._clearing: asyncio.Task[None] | None = None

    def publish(self, task_id: bytes, final: Final, by: str = "pod") -> None:
        """Publish a result to its caller; a failed publish stays due. Never raises.

        `by` labels the metric: "pod", or "sweeper" when the result was left over in the store.
        """
        if task_id in self._in_flight:
            return
        self._in_flight.add(task_id)
        message_id = f"{to_text(task_id)}:final"
        publication = Publication(final.subject, final.body, message_id, core_is_enough=True)
        self._publisher.publish(publication, partial(self._done, task_id, final, by))

    def _done(self, task_id: bytes, final: Final, by: str, outcome: Published) -> None:
        if not outcome:
            self._counts.labels("failed").inc()
            self._in_flight.discard(task_id)
            return
        self._counts.labels(by).inc()
        self._published.append((task_id, final, self._line.connection))
        if self._clearing is None:
            self._clearing = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        try:
            while self._published:
                published, self._published = self._published, []
                try:
                    await self._line.flush()
                    # A publish over an earlier connection may be lost with it: that result stays due.
                    flushed = [(t, final) for t, final, connection in published if connection == self._line.connection]
                    if flushed:
                        kept = {task: self._to_keep(final) for task, final in flushed}
                        await self._tasks.final_results_published(kept, self._keep.keep_ms)
                except (BusError, StoreError) as fault:
                    log.warning(
                        "final results not confirmed, the sweeper publishes them again: %s",
                        fault,
                        extra={"event": Event.PUBLISH_FAILED},
                    )
                self._in_flight.difference_update(task for task, _, _ in published)
        finally:
            self._clearing = None

    def _to_keep(self, final: Final) -> bytes:
        """The body that is kept for repeats."""
        if not self._keep.keep_ms:
            return b""
        body = final.body if final.spare is None else final.spare
        full = self._memory_share() >= FULL
        return final_result_to_keep(body, 0 if full else self._keep.max_output_bytes)

    async def drained(self) -> None:
        """Wait until this pod's published results are deleted from the store, or left to other pods."""
        if self._clearing is not None:
            await asyncio.wait([self._clearing])
