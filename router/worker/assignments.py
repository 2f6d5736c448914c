"""The life of an assignment in a worker: message, handler, result, ack.

An assignment is acknowledged to JetStream only after its result is stored, so a worker that dies loses nothing. The
server delivers the message to another worker after its ack wait, or the router starts the next attempt at the deadline,
whichever comes first. While a handler runs, the worker extends the ack wait every `IN_PROGRESS_EVERY_S`.

An assignment whose deadline has passed is acknowledged and not run: a new consumer delivers a stream from its
beginning. The worker remembers the ids of the last 4,096 finished assignments, so a repeated delivery does not run
twice here.
"""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from contextlib import suppress
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

MAX_FINISHED_IDS = 4096
IN_PROGRESS_EVERY_S = 10.0
RETRY_DELAYS_S = (0.05, 0.2, 1.0, 2.0)
# All workers share one consumer, but each may handle different job types. A worker without a handler passes the message
# on, after a random delay so that the other workers get their turn. Twenty deliveries usually reach a worker that has a
# handler; if there is none, the job is rejected after about two seconds.
MAX_PASS_ONS = 20
PASS_ON_DELAY_S = 0.02, 0.2


class Assignments:
    """The running assignments and the ids of finished ones. `slot_freed` is set whenever an assignment ends.

    `tenant`: only its assignments are run, and acks and results go to its subjects.
    """

    def __init__(self, handlers: Handlers, throttle: LogThrottle, tenant: str | None = None) -> None:
        self._handlers = handlers
        self._throttle = throttle
        self._tenant = tenant
        self._ack_subject, self._result_subject = subjects.ACK, subjects.RESULT
        if tenant is not None:
            self._ack_subject = subjects.of_tenant(subjects.ACK, tenant_id=tenant)
            self._result_subject = subjects.of_tenant(subjects.RESULT, tenant_id=tenant)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._finished_ids: OrderedDict[str, None] = OrderedDict()
        self.slot_freed = asyncio.Event()

    @property
    def reports_on(self) -> tuple[str, str]:
        """The subjects of acks and results."""
        return self._ack_subject, self._result_subject

    def __len__(self) -> int:
        return len(self._running)

    async def drain(self, within_s: float) -> None:
        """Wait for the running assignments; cancel the late ones, which returns them to the server."""
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def start(self, client: "Client", js: "JetStreamContext", message: "Msg") -> None:
        """Start the assignment in a message, unless this worker already runs it or has finished it.

        :raises nats.errors.Error: NATS is unavailable; the server delivers the message again.
        """
        try:
            assignment = messages.read_assignment(message.data)
        except msgspec.DecodeError as e:
            reason = "DECODE_ERROR" if isinstance(e, msgspec.ValidationError) else "PARSE_ERROR"
            where = f"{message.metadata.stream}:{message.metadata.sequence.stream}"
            log.warning("unreadable assignment dead-lettered: %s: %s", where, e)
            await client.publish(
                subjects.WORKER_DEAD_LETTER, messages.dead_letter(reason, payload_ref=where, now_ms=_now_ms())
            )
            await message.term()
            return
        assignment_id = assignment.assignment_id
        if assignment_id in self._running:
            await message.in_progress()
        elif assignment_id in self._finished_ids:
            await message.ack()
        elif _is_over(assignment):
            await message.ack()
            if (suppressed := self._throttle.due("over")) is not None:
                late_s = (_now_ms() - (assignment.deadline_at_ms or 0)) / 1000
                text = (
                    "assignment %s not begun: its deadline passed %.1f s ago by this clock (%d more in the last minute)"
                )
                log.warning(text, assignment_id, late_s, suppressed)
        elif self._tenant is not None and assignment.tenant_id != self._tenant:
            await message.nak(delay=random.uniform(*PASS_ON_DELAY_S))  # noqa: S311 - spreads retries, no secret
            if (suppressed := self._throttle.due("foreign")) is not None:
                text = "assignment of tenant %s passed on (%d more in the last minute): give %s a consumer of its own"
                log.warning(text, assignment.tenant_id, suppressed, self._tenant)
        elif not self._handlers.handles(assignment.job.type) and message.metadata.num_delivered <= MAX_PASS_ONS:
            await message.nak(delay=random.uniform(*PASS_ON_DELAY_S))  # noqa: S311 - spreads retries, no secret
        else:
            task = asyncio.create_task(self._perform(client, js, message, assignment))
            self._running[assignment_id] = task
            task.add_done_callback(lambda t: self._ended(assignment_id, t))

    def _ended(self, assignment_id: str, task: asyncio.Task[None]) -> None:
        self._running.pop(assignment_id, None)
        self.slot_freed.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("assignment not finished; the server delivers it again: %s", assignment_id, exc_info=error)
            return
        self._finished_ids[assignment_id] = None
        while len(self._finished_ids) > MAX_FINISHED_IDS:
            self._finished_ids.popitem(last=False)

    async def _perform(self, client: "Client", js: "JetStreamContext", message: "Msg", assignment: Assignment) -> None:
        if not self._handlers.handles(assignment.job.type):
            await self._reject(client, message, assignment, f"this worker runs {', '.join(self._handlers.types)}")
            return
        await client.publish(self._ack_subject, messages.ack(assignment, "accepted"))
        started_s = time.monotonic()
        handler_task = asyncio.create_task(self._handlers.run(assignment, _time_left_s(assignment)))
        try:
            while not (await asyncio.wait({handler_task}, timeout=IN_PROGRESS_EVERY_S))[0]:
                await message.in_progress()
            finished = handler_task.result()
        except Rejected as e:
            await self._reject(client, message, assignment, str(e))
            return
        except asyncio.CancelledError:
            handler_task.cancel()
            await message.nak()
            raise
        latency_ms = round((time.monotonic() - started_s) * 1000)
        try:
            await self._store(js, assignment, finished, latency_ms)
        except (nats.errors.Error, APIError, TimeoutError):
            # The stream may store nothing while core messages still arrive: the router finds out, and raises an alert.
            letter = messages.dead_letter("PUBLISH_ERROR", payload_ref=assignment.assignment_id, now_ms=_now_ms())
            with suppress(nats.errors.Error):
                await client.publish(subjects.WORKER_DEAD_LETTER, letter)
            raise
        await message.ack()

    async def _reject(self, client: "Client", message: "Msg", assignment: Assignment, reason: str) -> None:
        log.warning("assignment rejected: %s of type %r: %s", assignment.assignment_id, assignment.job.type, reason)
        await client.publish(self._ack_subject, messages.ack(assignment, "rejected", message=reason))
        await client.flush()
        await message.ack()

    async def _store(self, js: "JetStreamContext", assignment: Assignment, finished: Finished, latency_ms: int) -> None:
        """Store the result, with retries; the Nats-Msg-Id lets the server drop duplicates.

        :raises nats.errors.Error: the last try failed; the message stays unacknowledged.
        :raises nats.js.errors.APIError: likewise.
        :raises TimeoutError: likewise.
        """
        payload = messages.result(assignment, finished, latency_ms, now_ms=_now_ms())
        headers = {"Nats-Msg-Id": f"{assignment.assignment_id}:result", "tenant_id": assignment.tenant_id}
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((nats.errors.Error, APIError, TimeoutError)),
            wait=wait_chain(*map(wait_fixed, RETRY_DELAYS_S)),
            stop=stop_after_attempt(len(RETRY_DELAYS_S) + 1),
            before_sleep=partial(self._log_store_failure, assignment),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                is_last = attempt.retry_state.attempt_number > len(RETRY_DELAYS_S)
                await js.publish(self._result_subject, payload, headers=headers, timeout=5 if is_last else 2)

    def _log_store_failure(self, assignment: Assignment, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if self._throttle.due("store") is not None:
            reason = str(error) or type(error).__name__
            log.warning("result not stored yet; retrying: %s: %s", assignment.assignment_id, reason)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _is_over(assignment: Assignment) -> bool:
    """Whether the deadline has passed: the router has ended the attempt, and refuses a result of it."""
    return assignment.deadline_at_ms is not None and assignment.deadline_at_ms <= _now_ms()


def _time_left_s(assignment: Assignment) -> float | None:
    """Seconds until the deadline or the payload's `timeout_ms` ends, whichever is sooner; None without either."""
    limits_s: list[float] = []
    if assignment.deadline_at_ms is not None:
        limits_s.append((assignment.deadline_at_ms - _now_ms()) / 1000)
    timeout_ms = assignment.job.payload.get("timeout_ms")
    if isinstance(timeout_ms, int | float) and not isinstance(timeout_ms, bool):
        limits_s.append(timeout_ms / 1000)
    return max(0.0, min(limits_s)) if limits_s else None
