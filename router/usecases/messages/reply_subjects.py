"""Reports requests that were dropped for their reply subject: counted, alerted, and logged once a minute."""

import logging
import time

from router.domain.alert import FLEET, Condition
from router.domain.reply_refusal import ReplyRefusal
from router.log_throttle import LogThrottle
from router.ports.alerts import AlertSink
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.reply_subjects")

_MAX_CHARS = 256


class ReplySubjectWatch:
    """Counts, logs and alerts; a flood of refused requests costs about 3 µs each and one log line a minute."""

    def __init__(self, telemetry: Telemetry, alerts: AlertSink) -> None:
        self._counts = {r: telemetry.reply_subjects_refused.labels(r.value) for r in ReplyRefusal}
        self._alerts = alerts
        self._throttle = LogThrottle(time.monotonic)

    def refused(self, subject: bytes, reply: bytes, reason: ReplyRefusal) -> None:
        """Report one request to `subject` that was dropped. Never raises."""
        self._counts[reason].inc()
        self._alerts.occurred(Condition.REPLY_SUBJECT_REFUSED, FLEET, metadata={"reason": reason.value})
        if (suppressed := self._throttle.due()) is not None:
            log.warning(
                "request dropped: the router does not publish to its reply subject",
                extra={
                    "event": Event.REPLY_SUBJECT_REFUSED,
                    "subject": _text(subject),
                    "reply_subject": _text(reply),
                    "reason": reason.value,
                    "unsaid": suppressed,
                },
            )


def _text(subject: bytes) -> str:
    return subject[:_MAX_CHARS].decode("utf-8", errors="replace")
