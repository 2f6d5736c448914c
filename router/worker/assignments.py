"""The assignments that a worker has taken, from the message to its ack.

An assignment is acknowledged to JetStream only after its result is stored, so a worker that dies loses nothing: the
server hands the message to another one after its ack wait (long tasks prolong it), or the router starts the next
attempt at the deadline, whichever is first. The last 4096 assignment ids are remembered, so a second delivery is not
run twice here.
"""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import nats.errors
from nats.js.errors import APIError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_chain, wait_fixed

from router.log_throttle import LogThrottle
from router.wire import subjects
from router.worker import messages
from router.worker.job import Handlers, Rejected
from router.worker.messages import Assignment, Finished

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

log = logging.getLogger(__name__)

REMEMBERED = 4096
PROLONG_S = 10.0
RETRY_S = (0.05, 0.2, 1.0, 2.0)
# Workers of one fleet share a consumer, and not all need know every type: who does not know one passes it on. So often,
# and after a pause of its own, that whoever knows it has had it, while a type that nobody knows is rejected in time.
PASSED_ON = 20
PASS_ON_S = 0.02, 0.2


class Assignments:
    """Those that run now, and the ids of those that are done. `freed` is set whenever one has ended."""

    def __init__(self, handlers: Handlers, throttle: LogThrottle) -> None:
        self._handlers = handlers
        self._throttle = throttle
        self._running: dict[str, asyncio.Task[None]] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self.freed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._running)

    async def end(self, within_s: float) -> None:
        """Let them finish; what is not done in time is given back."""
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def take(self, client: "Client", js: "JetStreamContext", message: "Msg") -> None:
        """Begin what was not begun here before.

        :raises nats.errors.Error: NATS was lost; it comes again.
        """
        try:
            assignment = messages.read_assignment(message.data)
        except msgspec.DecodeError as e:
            reason = "DECODE_ERROR" if isinstance(e, msgspec.ValidationError) else "PARSE_ERROR"
            where = f"{messages.ASSIGN_STREAM}:{message.metadata.sequence.stream}"
            log.warning("not an assignment: %s is %s", where, e)
            await client.publish(subjects.WORKER_DEAD_LETTER, messages.dead_letter(reason, where, _now_ms()))
            await message.term()
            return
        name = assignment.assignment_id
        if name in self._running:
            await message.in_progress()
        elif name in self._done:
            await message.ack()
        elif not self._handlers.takes(assignment.job.type) and message.metadata.num_delivered <= PASSED_ON:
            await message.nak(delay=random.uniform(*PASS_ON_S))  # noqa: S311 - spreads them, hides nothing
        else:
            task = asyncio.create_task(self._perform(client, js, message, assignment))
            self._running[name] = task
            task.add_done_callback(lambda t: self._ended(name, t))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        self.freed.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("assignment %s was not finished; it will be delivered again", name, exc_info=error)
            return
        self._done[name] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    async def _perform(self, client: "Client", js: "JetStreamContext", message: "Msg", assignment: Assignment) -> None:
        if not self._handlers.takes(assignment.job.type):
            await self._reject(client, message, assignment, f"this worker runs {', '.join(self._handlers.types)}")
            return
        await client.publish(subjects.ACK, messages.receipt(assignment, "accepted"))
        started = time.monotonic()
        work = asyncio.create_task(self._handlers.run(assignment, _time_left_s(assignment)))
        try:
            while not (await asyncio.wait({work}, timeout=PROLONG_S))[0]:
                await message.in_progress()
            finished = work.result()
        except Rejected as e:
            await self._reject(client, message, assignment, str(e))
            return
        except asyncio.CancelledError:
            work.cancel()
            await message.nak()
            raise
        latency_ms = round((time.monotonic() - started) * 1000)
        await self._store(js, assignment, finished, latency_ms)
        await message.ack()

    async def _reject(self, client: "Client", message: "Msg", assignment: Assignment, why: str) -> None:
        log.warning("%s of type %r is rejected: %s", assignment.assignment_id, assignment.job.type, why)
        await client.publish(subjects.ACK, messages.receipt(assignment, "rejected", why))
        await client.flush()
        await message.ack()

    async def _store(self, js: "JetStreamContext", assignment: Assignment, finished: Finished, latency_ms: int) -> None:
        """Store the result; the same Nats-Msg-Id makes the repeats harmless."""
        payload = messages.result(assignment, finished, latency_ms, _now_ms())
        headers = {"Nats-Msg-Id": f"{assignment.assignment_id}:result", "tenant_id": assignment.tenant_id}
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((nats.errors.Error, APIError, TimeoutError)),
            wait=wait_chain(*map(wait_fixed, RETRY_S)),
            stop=stop_after_attempt(len(RETRY_S) + 1),
            before_sleep=partial(self._not_stored, assignment),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                last = attempt.retry_state.attempt_number > len(RETRY_S)
                await js.publish(subjects.RESULT, payload, headers=headers, timeout=5 if last else 2)

    def _not_stored(self, assignment: Assignment, state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome is not None else None
        if self._throttle.due("store") is not None:
            why = str(fault) or type(fault).__name__
            log.warning("result of %s is not stored yet: %s; trying on", assignment.assignment_id, why)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time_left_s(assignment: Assignment) -> float | None:
    """Seconds until the deadline or the payload's timeout_ms, whichever is sooner; None without either."""
    bounds: list[float] = []
    if assignment.deadline_at_ms is not None:
        bounds.append((assignment.deadline_at_ms - _now_ms()) / 1000)
    timeout_ms = assignment.job.payload.get("timeout_ms")
    if isinstance(timeout_ms, int | float) and not isinstance(timeout_ms, bool):
        bounds.append(timeout_ms / 1000)
    return max(0.0, min(bounds)) if bounds else None
