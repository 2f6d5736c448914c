"""What every consumer of a stream needs: deliveries, the delay of the next try, and where hopeless messages go."""

import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Protocol

from router.domain.alert import Condition
from router.domain.decision import Code, Intake, Refused
from router.ports import Publication, Publisher
from router.telemetry import Event, Telemetry
from router.usecases.gate import AlertSink
from router.wire.alerts import DeadLetter, encode_dead_letter

log = logging.getLogger("router.deliveries")

NAK_DELAYS_S = (1.0, 2.0, 4.0)


class Delivery(Protocol):
    """A message of a stream that was handed to us."""

    data: bytes
    delivered: int
    sequence: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    def ack(self) -> None:
        """Done with it."""

    def nak(self, delay_s: float = 0.0) -> None:
        """Again, later."""


def again(delivery: Delivery) -> None:
    """It could not be handled now: 1, 2, then 4 seconds later."""
    delivery.nak(NAK_DELAYS_S[min(delivery.delivered, len(NAK_DELAYS_S)) - 1])


VIOLATION = Refused(
    Code.UNAUTHORIZED,
    "names a tenant whose task it is not",
    {"intake_error_code": Intake.TENANT_FORBIDDEN.value},
)
"""Why a report of somebody else's task is given up on."""


def violation(telemetry: Telemetry, alerts: AlertSink, named: str, owner: str) -> None:
    """Somebody reported on a task that belongs to another tenant: counted, logged, alerted; nothing is settled."""
    telemetry.isolation_violations.inc()
    log.error(
        "a report named a task of another tenant",
        extra={"event": Event.ISOLATION_VIOLATION, "tenant_id": owner, "named": named},
    )
    alerts.happened(Condition.ISOLATION_VIOLATION, owner, metadata={"tenant_id": owner})


class DeadLetters:
    """Gives up on messages that can never be handled. The payload goes along only if the setting allows."""

    def __init__(
        self,
        publisher: Publisher,
        telemetry: Telemetry,
        alerts: AlertSink,
        *,
        keep_payload: bool,
        wall_ms: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._telemetry = telemetry
        self._alerts = alerts
        self._keep_payload = keep_payload
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
        )
        payload, headers = encode_dead_letter(letter)
        # The same message makes the same id, however often it is delivered.
        message_id = f"{subject}:{delivery.sequence}:{sha256(delivery.data).hexdigest()[:16]}"
        log.warning("a message was given up on", extra={"event": Event.DEAD_LETTER, "reason": refused.message})
        self._publisher.publish(
            Publication(f"{subject}.dlq", payload, message_id, headers),
            lambda stored: delivery.ack() if stored else again(delivery),
        )
