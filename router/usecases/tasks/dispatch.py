"""Publication of a pushed task to the workers.

    record NEW, written by the decision → event and assignment published ─▶ assignment stored: record PUBLISHED
                                                                         ├▶ refused, or never sent: the task ends
                                                                         └▶ no answer: record stays NEW

The decision writes the record and the work item, so a pod that dies on the way leaves a NEW task for the sweeper, which
publishes both again. The streams drop repeats by message id. The event is sent first, over the same connection: a
worker that has the assignment cannot end the task before its event is there. The mark waits for the event's ack, but
not for long: a missed deadline counts against the provider only if the assignment was stored.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import assert_never

from router.domain.audit.records import TaskFeatures
from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.tasks.task import Move, TaskRecord
from router.log_throttle import LogThrottle
from router.ports.bus import Publication, Published, Publisher
from router.ports.tasks import TaskStore
from router.telemetry import Event, Telemetry
from router.usecases.tasks.marks import InFlight, Marks, mark_of
from router.wire import subjects
from router.wire.assignment import Attempt, assignment, encode_assigned_event

log = logging.getLogger("router.dispatch")


TTL_MARGIN_S = 60
"""How much longer than its deadline a stream keeps an assignment, where it lets messages expire one by one."""
EVENT_GRACE_S = 1.0
"""How long the mark of a stored assignment waits for the ack of its event."""

Undispatched = Callable[[bytes, int, str], None]
"""Ends a task whose attempt was never stored: task id, attempt, and why, such as the server's words."""


class Dispatcher:
    """Publishes attempts and marks them as published; marks that wait for the store share one call.

    An assignment that is stored more than `late_ms` after the start of its attempt is marked as late. The pod sets
    `on_undispatched`.
    """

    def __init__(
        self,
        tasks: TaskStore,
        publisher: Publisher,
        telemetry: Telemetry,
        now_ms: Callable[[str], int],
        *,
        late_ms: int = 15_000,
    ) -> None:
        self._late_ms = late_ms
        self._held: set[str] = set()
        self.on_undispatched: Undispatched = lambda _task, _attempt, _why: None
        self._publisher = publisher
        self._telemetry = telemetry
        self._now_ms = now_ms
        self._mark = Marks(tasks, now_ms, self._closed).add
        self._idle = asyncio.Event()
        self._idle.set()
        self._throttle = LogThrottle(time.monotonic)

    def admitted(self, request: DecideRequest, plan: Plan, outcome: Admitted, job: bytes) -> None:
        """See `ports.tasks.Dispatch.admitted`."""
        self._begin(request, plan, outcome, job=job, decision=outcome.decision_id, number=1)

    def next_attempt(
        self, request: DecideRequest, plan: Plan, record: TaskRecord, outcome: Admitted, job: bytes
    ) -> None:
        """Publish the attempt after the record's current attempt."""
        self._begin(request, plan, outcome, job=job, decision=record.decision_id, number=record.attempt + 1)

    def _begin(
        self, request: DecideRequest, plan: Plan, outcome: Admitted, *, job: bytes, decision: bytes, number: int
    ) -> None:
        chosen = plan.candidates[outcome.candidate]
        task = task_id(decision)
        now, deadline_ms = self._now_ms(request.tenant_id), plan.deadline_of(chosen)
        attempt = Attempt(
            to_text(assignment_id(task, number)),
            to_text(task),
            number,
            chosen.provider.name,
            outcome.reason,
            plan.stored.policy_id,
            plan.stored.revision,
            chosen.expected_latency_ms,
            chosen.expected_cost_microusd,
            now,
            now + deadline_ms,
            chosen.provider.endpoint,
            deadline_ms,
        )
        features = TaskFeatures(
            request.request_id,
            plan.stored.policy_id,
            plan.stored.revision,
            chosen.provider.name,
            attempt.assignment_id,
            request.user_id,
            request.correlation.trace_id,
            ip_address=request.client_ip,
        )
        mark = mark_of(request.tenant_id, decision, number, attempt.deadline_at_ms, features)
        self._publish(request.assignment_subject, attempt, job, mark)

    def republish(self, record: TaskRecord, job: bytes) -> None:
        """Publish the current attempt of a record that is still NEW: its pod died, or a publish failed."""
        facts = record.facts
        task = task_id(record.decision_id)
        attempt = Attempt(
            assignment_id=to_text(assignment_id(task, record.attempt)),
            task_id=to_text(task),
            attempt=record.attempt,
            provider_id=record.provider_id,
            reason=record.reason,
            policy_id=facts.policy_id,
            policy_revision=facts.policy_revision,
            expected_latency_ms=record.expected_latency_ms,
            expected_cost_microusd=record.expected_cost_microusd,
            created_at_ms=record.charged_ms,
            deadline_at_ms=record.deadline_at_ms,
            deadline_ms=facts.attempt_ms,
        )
        features = TaskFeatures(
            request_id=facts.request_id,
            policy_id=facts.policy_id,
            policy_revision=facts.policy_revision,
            provider_id=record.provider_id,
            assignment_id=attempt.assignment_id,
            user_id=facts.user_id,
            trace_id=facts.trace_id,
            note="published by the sweeper",
            ip_address=facts.client_ip,
        )
        mark = mark_of(facts.tenant_id, record.decision_id, record.attempt, record.deadline_at_ms, features)
        self._publish(facts.subject, attempt, job, mark)

    def _publish(self, subject: str | None, attempt: Attempt, job: bytes, mark: Move) -> None:
        if attempt.assignment_id in self._held:
            return  # the sweeper finds a task whose publish is still under way here
        subject = subject or subjects.ASSIGN
        payload, headers = assignment(job, attempt)
        event = encode_assigned_event(job, attempt, subject=subject, timestamp_ms=attempt.created_at_ms)
        if not self._held:
            self._idle.clear()
        self._held.add(attempt.assignment_id)
        in_flight = InFlight(
            attempt.assignment_id, mark, attempt.deadline_at_ms - (attempt.deadline_ms or 0) + self._late_ms
        )
        within_s = max(0.0, (attempt.deadline_at_ms - self._now_ms(mark.tenant_id)) / 1000)
        self._publisher.publish(
            Publication(subjects.ASSIGNED, event, f"{attempt.assignment_id}:assigned", within_s=within_s),
            partial(self._event_settled, in_flight),
        )
        self._publisher.publish(
            Publication(
                subject,
                payload,
                attempt.assignment_id,
                headers,
                ttl_s=math.ceil(within_s) + TTL_MARGIN_S,
                within_s=within_s,
                failed=partial(setattr, in_flight, "reason"),
            ),
            partial(self._settled, in_flight),
        )

    def _event_settled(self, in_flight: InFlight, _outcome: Published) -> None:
        in_flight.event_settled = True
        if in_flight.timer is not None:
            in_flight.timer.cancel()
            self._mark(in_flight)

    def _settled(self, in_flight: InFlight, outcome: Published) -> None:
        in_flight.stored = outcome
        match outcome:
            case Published.STORED:
                self._telemetry.assignments_published.inc()
            case Published.DUPLICATE:
                # An earlier publish was acknowledged but not marked: the stream holds one copy.
                self._telemetry.assignments_duplicate.inc()
            case Published.UNANSWERED:
                # The record is still NEW: the sweeper publishes both again, and the streams drop repeats.
                self._warn("assignment not confirmed, the sweeper retries", in_flight)
                self._closed(in_flight)
                return
            case Published.REFUSED | Published.UNSENT:
                self._warn("assignment not published, its task ends", in_flight)
                self._closed(in_flight)
                mark = in_flight.mark
                self.on_undispatched(task_id(mark.decision_id), mark.attempt, in_flight.reason)
                return
            case _:
                assert_never(outcome)
        if in_flight.event_settled:
            self._mark(in_flight)
        else:
            loop = asyncio.get_running_loop()
            in_flight.timer = loop.call_later(EVENT_GRACE_S, self._mark, in_flight)

    def _warn(self, message: str, in_flight: InFlight) -> None:
        if (suppressed := self._throttle.due(message)) is not None:
            fields = {"event": Event.PUBLISH_FAILED, "assignment_id": in_flight.assignment_id, "unsaid": suppressed}
            log.warning("%s: %s", message, in_flight.reason or "no answer", extra=fields)

    def _closed(self, in_flight: InFlight) -> None:
        self._held.discard(in_flight.assignment_id)
        if not self._held:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until every attempt is published and marked, or left to the sweeper."""
        await self._idle.wait()
