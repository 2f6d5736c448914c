"""Failure handling for every stream consumer: retries with delay, failure budgets, dead letters.

handler returns        it has acknowledged, dead-lettered or delayed every delivery
store unavailable      all open deliveries are retried; nothing is counted
any other exception    each open delivery is handled alone; a second failure counts against its failure budget
failure budget spent   the message becomes a dead letter
"""

import logging
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from uuid import uuid4

from router.domain.alert import Condition, Door
from router.domain.decide.decision import Code, Intake, Refused
from router.domain.json import JsonObject
from router.errors import StoreDamaged, StoreError
from router.log_throttle import LogThrottle
from router.ports.alerts import AlertSink
from router.ports.bus import Delivery, Handle, Publication, Published, Publisher
from router.ports.tasks import DeliveryFailures
from router.telemetry import Event, Telemetry
from router.usecases.messages.dead_letter_limit import DeadLetterLimit
from router.usecases.messages.isolation_violations import IsolationViolations
from router.wire.alerts import DeadLetter, encode_dead_letter

log = logging.getLogger("router.deliveries")

REDRIVEN = "x-redriven"
"""Header of a redriven message: the stream sequence of its dead letter in the DLQ."""
REDRIVEN_BY = "x-redriven-by"
"""Header of a redriven message: the principal who sent it again."""
NAK_DELAYS_S = (1.0, 2.0, 4.0)


def retry_later(delivery: Delivery) -> None:
    """Ask for a redelivery after 1 s, 2 s, then 4 s each time."""
    delivery.nak(NAK_DELAYS_S[min(delivery.delivered, len(NAK_DELAYS_S)) - 1])


class FailureBudget:
    """Number of lasting failures of a message, over all pods, before it becomes a dead letter; outages do not count."""

    def __init__(self, failures: DeliveryFailures, cause: str, maximum: int) -> None:
        self._failures = failures
        self._cause = cause
        self._maximum = maximum

    async def spent_by(self, delivery: Delivery) -> bool:
        """Count one failure of the message; True: its budget is now spent.

        :raises StoreError: the failure could not be counted.
        """
        return await self._failures.count(self._cause, delivery.sequence, delivery.data) >= self._maximum


class PoisonGuard:
    """Wraps a pull loop's handler so that no message can stop the loop; the module describes how.

    `away` is called when the store is unavailable.
    """

    def __init__(
        self,
        handle: Handle,
        subject: str,
        dead_letters: "DeadLetters",
        *,
        budget: FailureBudget,
        on_unavailable: Callable[[], None],
    ) -> None:
        self._handle = handle
        self._subject = subject
        self._dead_letters = dead_letters
        self._budget = budget
        self._on_unavailable = on_unavailable
        self._throttle = LogThrottle(time.monotonic)

    async def __call__(self, batch: Sequence[Delivery]) -> None:
        """Handle a batch; afterwards every delivery is acknowledged, dead-lettered or delayed."""
        fault = await self._try(batch)
        if fault is None:
            return
        for delivery in batch:
            if not delivery.settled and (fault_alone := await self._try([delivery])) is not None:
                await self._fail(delivery, fault_alone)

    async def _fail(self, delivery: Delivery, fault: Exception) -> None:
        try:
            spent = await self._budget.spent_by(delivery)
        except StoreError as unavailable:
            log.debug("failure of a message not counted: %s", unavailable)
            spent = False
        if spent:
            refused = Refused(Code.INTERNAL, f"it cannot be handled: {type(fault).__name__}")
            self._dead_letters.give_up(self._subject, delivery, refused)
        else:
            retry_later(delivery)

    async def _try(self, batch: Sequence[Delivery]) -> Exception | None:
        """Handle the batch; return the exception that some message of it caused, if one did."""
        try:
            await self._handle(batch)
        except StoreDamaged as fault:
            log.error("damaged Redis key: %s", fault, extra={"event": Event.STORE_ROW_FAULT})
            return fault
        except StoreError as fault:
            # Throttled: a store that answers but refuses, such as a replica, is retried twice a second.
            if (suppressed := self._throttle.due(str(fault))) is not None:
                fields = {"event": Event.STORE_AWAY, "unsaid": suppressed}
                log.warning("consumer of %s waits for the store: %s", self._subject, fault, extra=fields)
            for delivery in batch:
                retry_later(delivery)
            self._on_unavailable()
        except Exception as fault:  # a bug that one message triggers must not stop the others
            log.exception("consumer of %s failed on a batch", self._subject, extra={"event": Event.BUG})
            return fault
        else:
            self._throttle.over()
        return None


VIOLATION = Refused(
    Code.UNAUTHORIZED,
    "the task belongs to another tenant than the one named",
    {"intake_error_code": Intake.TENANT_FORBIDDEN.value},
)
"""Reason of the dead letter of an ack or result that names another tenant's task."""


def report_violation(isolation: IsolationViolations, door: Door, named: str, *, owner: str | None) -> None:
    """Log, count and alert on an ack or result of tenant `named` for a task of another tenant (`owner`, if known)."""
    owner_field = {} if owner is None else {"tenant_id": owner}
    log.error(
        "ack or result names another tenant's task",
        extra={"event": Event.ISOLATION_VIOLATION, "named": named, **owner_field},
    )
    isolation.violated(door, owner)


def _error_code(refused: Refused) -> str:
    return str(refused.details.get("intake_error_code", refused.code.value))


def _ignore_outcome(_outcome: Published) -> None:
    """The publisher has logged a failure."""


def _context(delivery: Delivery) -> JsonObject:
    """The facts that a redrive needs to find the original message and send it unchanged."""
    context: JsonObject = {"stream_sequence": delivery.sequence, "delivered": delivery.delivered}
    content_type = delivery.headers.get("Content-Type")
    return context if content_type is None else context | {"content_type": content_type}


class DeadLetters:
    """Publishes messages that cannot be handled as dead letters.

    `keep_payload`: a dead letter holds the payload, not only its hash. `max_bytes`: maximum size of a dead letter.
    """

    def __init__(
        self,
        publisher: Publisher,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        keep_payload: bool,
        max_bytes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._telemetry = telemetry
        self._alerts = alerts
        self._limit = DeadLetterLimit(clock)
        self._keep_payload = keep_payload
        self._max_bytes = max_bytes

    def refuse(
        self,
        subject: str,
        delivery: Delivery,
        refused: Refused,
        *,
        tenant_id: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        """Dead-letter a message that no pod can ever use; a flood of them is bounded and counted.

        Arguments as for `give_up`. A message without a dead letter is acknowledged; its stream keeps it for its maximum
        age.
        """
        if self._limit.admits(subject, reason=refused.message, error_code=_error_code(refused), delivery=delivery):
            self.give_up(subject, delivery, refused, tenant_id=tenant_id, trace_id=trace_id)
            return
        self._telemetry.dead_letters.labels("left_out").inc()
        self._alerts.occurred(Condition.DEAD_LETTERS, subject)
        delivery.ack()

    def tick(self, *, last: bool = False) -> None:
        """Publish the counts of the minutes that have ended; `last`: of all minutes, because the pod ends."""
        for left_out in self._limit.ended(all_minutes=last):
            letter = DeadLetter(
                original_subject=left_out.subject,
                reason=left_out.reason,
                error_code=left_out.error_code,
                received_at_ms=left_out.first_stored_ms,
                payload=b"",
                context={
                    "left_out": left_out.count,
                    "first_stream_sequence": left_out.first_sequence,
                    "last_stream_sequence": left_out.last_sequence,
                },
            )
            payload, headers = encode_dead_letter(letter, self._max_bytes())
            fields = {"event": Event.DEAD_LETTER, "reason": left_out.reason, "left_out": left_out.count}
            log.warning("messages got no dead letters of their own", extra=fields)
            self._publisher.publish(
                Publication(f"{left_out.subject}.dlq", payload, f"left-out:{uuid4().hex}", headers), _ignore_outcome
            )

    def give_up(
        self,
        subject: str,
        delivery: Delivery,
        refused: Refused,
        *,
        tenant_id: str | None = None,
        trace_id: str | None = None,
        context: JsonObject | None = None,
    ) -> None:
        """Publish a dead letter to `<subject>.dlq`; acknowledge the message once it is stored, else retry the message.

        `subject` is the open subject of the consumer; the dead letter names the message's own, so that a redrive keeps
        the tenant that it is bound to.
        `tenant_id`: the owner of the task that the message is about, if known. `context`: further facts for operators.
        """
        self._telemetry.dead_letters.labels("router").inc()
        self._alerts.occurred(Condition.DEAD_LETTERS, subject)
        letter = DeadLetter(
            original_subject=delivery.subject,
            reason=refused.message,
            error_code=_error_code(refused),
            received_at_ms=delivery.stored_ms,
            payload=delivery.data,
            keep_payload=self._keep_payload,
            original_msg_id=delivery.headers.get("Nats-Msg-Id"),
            tenant_id=tenant_id,
            trace_id=trace_id,
            context=_context(delivery) | (context or {}),
        )
        payload, headers = encode_dead_letter(letter, self._max_bytes())
        # Every delivery of a message gets the same id, so the stream drops repeats.
        message_id = f"{subject}:{delivery.sequence}:{sha256(delivery.data).hexdigest()[:16]}"
        log.warning("message became a dead letter", extra={"event": Event.DEAD_LETTER, "reason": refused.message})
        self._publisher.publish(
            Publication(f"{subject}.dlq", payload, message_id, headers),
            lambda outcome: delivery.ack() if outcome else retry_later(delivery),
        )
