"""Publication of a task's end to callers who repeat its request.

    replay of a pushed request that names a result_subject → the end that is kept, else the end without output from the
    tombstone → published to the subject of the repeat

A task that ended without a verdict may have been settled since, by a late result. The caller who asked first is not
told a second end; a repeat gets the end that holds now.

While the task still runs, a repeat with another subject waits in this pod until the task ends. A repeat is published
once, without confirmation: its caller can repeat again. Each has a message id of its own, because a stream that covers
several result subjects must not take it for the first copy.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from secrets import token_hex

from msgspec import Struct

from router.chunks import chunks
from router.domain.decide.outcome import StoredAnswer
from router.domain.decide.request import DecideRequest
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.tasks.result import ExecResult, ResultStatus
from router.domain.tasks.task import Dispatched, Final, TaskRecord, TaskState
from router.errors import StoreError
from router.ports.bus import Publication, Published, Publisher
from router.ports.tasks import TaskStore
from router.telemetry import Telemetry
from router.usecases.tasks.moves import origin_of
from router.usecases.tasks.undispatched import ERROR_CODE
from router.wire.assignment import final_end, final_result, without_output

log = logging.getLogger("router.finals")

MAX_WAITING = 1_000
"""Repeats of running tasks that wait in a pod; later ones are dropped, and their callers may repeat again."""
_AT_ONCE = 128
_STATUSES = {
    TaskState.SUCCEEDED: ResultStatus.SUCCESS,
    TaskState.FAILED: ResultStatus.ERROR,
    TaskState.TIMED_OUT: ResultStatus.TIMEOUT,
    TaskState.CANCELLED: ResultStatus.CANCELLED,
}


def _is_overtaken(body: bytes, record: TaskRecord) -> bool:
    """Whether a late result has settled the task after this final result was made."""
    status, error_code = final_end(body)
    ran_after_all = error_code == ERROR_CODE and record.why != Dispatched.FAILED
    return record.state.final and (status != _STATUSES[record.state] or ran_after_all)


class _Repeat(Struct, frozen=True):
    task_id: bytes
    subject: str


class Repeats:
    """Publishes ends to callers who repeat; one loop, which runs only while there are repeats to answer.

    `every_s`: seconds between two checks of tasks that still run.
    """

    def __init__(
        self,
        tasks: TaskStore,
        publisher: Publisher,
        telemetry: Telemetry,
        *,
        max_bytes: Callable[[], int],
        every_s: float = 1.0,
    ) -> None:
        self._tasks = tasks
        self._publisher = publisher
        self._counts = telemetry.final_results
        self._max_bytes = max_bytes
        self._every_s = every_s
        self._new: list[_Repeat] = []
        self._waiting: list[_Repeat] = []
        self._has_new = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def replayed(self, request: DecideRequest, answer: StoredAnswer) -> None:
        """Answer the repeat of a pushed request that wants the end. Never raises and never waits."""
        subject = request.options.result_subject
        if subject is None or not answer.pushed or answer.unfinished:
            return
        self._new.append(_Repeat(task_id(answer.decision_id), subject))
        self._has_new.set()
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._new or self._waiting:
                new, self._new = self._new, []
                self._has_new.clear()
                repeats = [*new, *self._waiting]
                try:
                    self._waiting = [r for r in await self._answer(repeats) if r is not None][:MAX_WAITING]
                except StoreError as fault:
                    # Their callers repeat again.
                    self._waiting = []
                    self._counts.labels("failed").inc(len(repeats))
                    log.debug("repeats not answered: %s", fault)
                if self._waiting and not self._new:
                    try:
                        async with asyncio.timeout(self._every_s):
                            await self._has_new.wait()
                    except TimeoutError:
                        pass
        finally:
            self._running = None

    async def _answer(self, repeats: Sequence[_Repeat]) -> list[_Repeat]:
        """Publish the ends of these tasks; return the repeats whose tasks still run."""
        running: list[_Repeat] = []
        for batch in chunks(repeats, _AT_ONCE):
            ids = [r.task_id for r in batch]
            records = await self._tasks.records(ids)
            kept = await self._tasks.kept_final_results(ids)
            for repeat, record, body in zip(batch, records, kept, strict=True):
                ended = isinstance(record, TaskRecord) and record.state.final
                if body is not None and not (isinstance(record, TaskRecord) and _is_overtaken(body, record)):
                    self._publish(repeat, body)
                elif isinstance(record, TaskRecord) and ended:
                    self._publish(repeat, await self._end_of(repeat.task_id, record))
                elif isinstance(record, TaskRecord) and record.facts.result_subject != repeat.subject:
                    running.append(repeat)
        return running

    async def _end_of(self, task: bytes, record: TaskRecord) -> bytes:
        """The end that waits for its first publication, else what the tombstone knows of it."""
        (final,) = await self._tasks.final_results([task])
        if isinstance(final, Final) and not _is_overtaken(final.body, record):
            return final.body
        # It may have been published and kept since it was looked up.
        (kept,) = await self._tasks.kept_final_results([task])
        if kept is not None and not _is_overtaken(kept, record):
            return kept
        # Whether anything ran matters to a caller who repeats; other error codes are not in the tombstone.
        error_code = ERROR_CODE if record.why == Dispatched.FAILED else None
        body, _ = final_result(
            ExecResult(_STATUSES[record.state], error_code=error_code),
            task_id=to_text(task),
            assignment_id=to_text(assignment_id(task, record.attempt)),
            attempt=record.attempt,
            provider_id=record.provider_id,
            origin=origin_of(record.facts),
            max_bytes=self._max_bytes(),
            max_kept=self._max_bytes(),
        )
        return without_output(body)

    def _publish(self, repeat: _Repeat, body: bytes) -> None:
        message_id = f"{to_text(repeat.task_id)}:final:{token_hex(8)}"
        self._publisher.publish(Publication(repeat.subject, body, message_id, core_is_enough=True), self._done)

    def _done(self, outcome: Published) -> None:
        self._counts.labels("repeat" if outcome else "failed").inc()

    async def drained(self) -> None:
        """Wait for the look-up that is under way, and drop the repeats whose tasks still run."""
        if self._running is not None:
            self._waiting = []
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
