"""Final results on their way to the callers who asked for them.

    task ended, its final result kept in the same act → published → read by the server → forgotten
                                                  └─ the pod died: due after 5 s, any pod tells

At least once, and always the same: what was kept when the task ended. A stream drops a repeat by its message id,
`<task_id>:final`; a caller with a bare subject may hear it twice. Where no stream is, "told" means that the server had
it: nobody can say more of a core publish.
"""

import asyncio
import logging
from functools import partial

from router.domain.ids import to_text
from router.domain.task import Final
from router.errors import BusError, StoreError
from router.ports.bus import Line, Publication, Published, Publisher
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.finals")


class FinalResults:
    """Tells them, each at a time by one of this pod's hands."""

    def __init__(self, tasks: TaskStore, publisher: Publisher, line: Line, telemetry: Telemetry) -> None:
        self._tasks = tasks
        self._publisher = publisher
        self._line = line
        self._told = telemetry.final_results
        self._on_the_way: set[bytes] = set()
        self._published: list[tuple[bytes, int]] = []
        self._clearing: asyncio.Task[None] | None = None

    def tell(self, task_id: bytes, final: Final, by: str = "pod") -> None:
        """To the caller; what does not get there stays due. Never raises. `by`: pod, or sweeper after a pod's death."""
        if task_id in self._on_the_way:
            return
        self._on_the_way.add(task_id)
        message_id = f"{to_text(task_id)}:final"
        publication = Publication(final.subject, final.body, message_id, core_will_do=True)
        self._publisher.publish(publication, partial(self._done, task_id, by))

    def _done(self, task_id: bytes, by: str, outcome: Published) -> None:
        if not outcome:
            self._told.labels("failed").inc()
            self._on_the_way.discard(task_id)
            return
        self._told.labels(by).inc()
        self._published.append((task_id, self._line.connection))
        if self._clearing is None:
            self._clearing = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        try:
            while self._published:
                published, self._published = self._published, []
                try:
                    await self._line.flush()
                    # What was sent over a connection that was lost since then may be lost with it.
                    there = [task for task, connection in published if connection == self._line.connection]
                    if there:
                        await self._tasks.told(there)
                except (BusError, StoreError) as fault:
                    log.warning("final results are told again: %s", fault, extra={"event": Event.PUBLISH_FAILED})
                self._on_the_way.difference_update(task for task, _ in published)
        finally:
            self._clearing = None

    async def drained(self) -> None:
        """Returns when what this pod has told is forgotten, or left to the other pods."""
        if self._clearing is not None:
            await asyncio.wait([self._clearing])
