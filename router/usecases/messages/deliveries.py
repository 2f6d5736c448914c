"""What every consumer of a stream needs: deliveries, the delay of the next try, and where hopeless messages go."""

import logging
import time
from collections.abc import Callable, Sequence
from hashlib import sha256

from router.domain.alert import Condition, Door
from router.domain.decision import Code, Intake, Refused
from router.domain.json import JsonObject
from router.errors import StoreDamaged, StoreError
from router.log_throttle import LogThrottle
from router.ports.alerts import AlertSink
from router.ports.bus import Delivery, Handle, Publication, Publisher
from router.ports.tasks import DeliveryFailures
from router.telemetry import Event, Telemetry
from router.usecases.messages.isolation import Isolation
from router.wire.alerts import DeadLetter, encode_dead_letter

log = logging.getLogger("router.deliveries")

REDRIVEN = "x-redriven"
"""Header of a message that was a dead letter: its place in the DLQ."""
REDRIVEN_BY = "x-redriven-by"
"""Who sent it again."""
NAK_DELAYS_S = (1.0, 2.0, 4.0)


def again(delivery: Delivery) -> None:
    """It could not be handled now: 1, 2, then 4 seconds later."""
    delivery.nak(NAK_DELAYS_S[min(delivery.delivered, len(NAK_DELAYS_S)) - 1])


class FailureBudget:
    """How often a message may fail for good, in whichever pods, before it is given up on; outages do not count."""

    def __init__(self, failures: DeliveryFailures, cause: str, maximum: int) -> None:
        self._failures = failures
        self._cause = cause
        self._maximum = maximum

    async def ends(self, delivery: Delivery) -> bool:
        """Count one failure; whether that was the last try.

        :raises StoreError: it could not be counted.
        """
        return await self._failures.count(self._cause, delivery.sequence, delivery.data) >= self._maximum


class PoisonGuard:
    """A handler for a pull loop that no message can stop.

    The store is away: what is open comes again, nothing is counted, and `away` is told. Anything else that the handler
    raises is the fault of some message: the batch is handled one by one, and a message that fails alone is given up on
    when that was the end of patience.
    """

    def __init__(
        self,
        handle: Handle,
        subject: str,
        dead_letters: "DeadLetters",
        *,
        budget: FailureBudget,
        away: Callable[[], None],
    ) -> None:
        self._handle = handle
        self._subject = subject
        self._dead_letters = dead_letters
        self._budget = budget
        self._away = away
        self._throttle = LogThrottle(time.monotonic)

    async def __call__(self, batch: Sequence[Delivery]) -> None:
        """Handle a batch; afterwards something was said about each delivery."""
        fault = await self._fault_of(batch)
        if fault is None:
            return
        for delivery in batch:
            if not delivery.settled and (alone := await self._fault_of([delivery])) is not None:
                await self._failed(delivery, alone)

    async def _failed(self, delivery: Delivery, fault: Exception) -> None:
        try:
            last = await self._budget.ends(delivery)
        except StoreError as away:
            log.debug("a failure is not counted: %s", away)
            last = False
        if last:
            why = Refused(Code.INTERNAL, f"it cannot be handled: {type(fault).__name__}")
            self._dead_letters.give_up(self._subject, delivery, why)
        else:
            again(delivery)

    async def _fault_of(self, batch: Sequence[Delivery]) -> Exception | None:
        try:
            await self._handle(batch)
        except StoreDamaged as fault:
            log.error("a key is damaged: %s", fault, extra={"event": Event.STORE_ROW_FAULT})
            return fault
        except StoreError as fault:
            # A store that answers and refuses, such as a replica, is tried again twice a second.
            if (unsaid := self._throttle.due(str(fault))) is not None:
                fields = {"event": Event.STORE_AWAY, "unsaid": unsaid}
                log.warning("%s waits for the store: %s", self._subject, fault, extra=fields)
            for delivery in batch:
                again(delivery)
            self._away()
        except Exception as fault:  # a bug that one message finds must not stop the others
            log.exception("a batch of %s failed", self._subject, extra={"event": Event.BUG})
            return fault
        else:
            self._throttle.over()
        return None


VIOLATION = Refused(
    Code.UNAUTHORIZED,
    "names a tenant whose task it is not",
    {"intake_error_code": Intake.TENANT_FORBIDDEN.value},
)
"""Why a report of somebody else's task is given up on."""


def violation(isolation: Isolation, door: Door, named: str, owner: str | None) -> None:
    """Somebody reported on what belongs to another tenant, if known `owner`: counted, logged, alerted; nothing is
    settled."""
    whose = {} if owner is None else {"tenant_id": owner}
    log.error(
        "a report named a task of another tenant",
        extra={"event": Event.ISOLATION_VIOLATION, "named": named, **whose},
    )
    isolation.violated(door, owner)


def _context(delivery: Delivery) -> JsonObject:
    """What a re-drive needs to find and read the message again."""
    context: JsonObject = {"stream_sequence": delivery.sequence, "delivered": delivery.delivered}
    content_type = delivery.headers.get("Content-Type")
    return context if content_type is None else context | {"content_type": content_type}


class DeadLetters:
    """Gives up on messages that can never be handled. The payload goes along only if the setting allows.

    `max_bytes`: of a letter that can be published.
    """

    def __init__(
        self,
        publisher: Publisher,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        keep_payload: bool,
        max_bytes: Callable[[], int],
        wall_ms: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._telemetry = telemetry
        self._alerts = alerts
        self._keep_payload = keep_payload
        self._max_bytes = max_bytes
        self._wall_ms = wall_ms

    def give_up(
        self,
        subject: str,
        delivery: Delivery,
        refused: Refused,
        *,
        tenant_id: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        """To `<subject>.dlq`; the message is acked once its letter is stored, and comes again otherwise.

        `tenant_id` is the one whose task it is about, if that is known.
        """
        self._telemetry.dead_letters.labels("router").inc()
        self._alerts.happened(Condition.DEAD_LETTERS, subject)
        letter = DeadLetter(
            subject,
            refused.message,
            str(refused.details.get("intake_error_code", refused.code.value)),
            self._wall_ms(),
            delivery.data,
            keep_payload=self._keep_payload,
            original_msg_id=delivery.headers.get("Nats-Msg-Id"),
            tenant_id=tenant_id,
            trace_id=trace_id,
            context=_context(delivery),
        )
        payload, headers = encode_dead_letter(letter, self._max_bytes())
        # The same message makes the same id, however often it is delivered.
        message_id = f"{subject}:{delivery.sequence}:{sha256(delivery.data).hexdigest()[:16]}"
        log.warning("a message was given up on", extra={"event": Event.DEAD_LETTER, "reason": refused.message})
        self._publisher.publish(
            Publication(f"{subject}.dlq", payload, message_id, headers),
            lambda outcome: delivery.ack() if outcome else again(delivery),
        )
