"""Messages that were not published: counted, logged, and reported to who published them."""

import asyncio
import logging
import time

from router.bus.publishing.pending import Pending
from router.log_throttle import LogThrottle
from router.ports.bus import Publication
from router.telemetry.events import Event

log = logging.getLogger(__name__)


class Failures:
    """Counts all failures. The log is throttled: a full stream refuses every message, and callers repeat them."""

    def __init__(self) -> None:
        self._throttle = LogThrottle(time.monotonic)
        self.count = 0

    def refused(self, publication: Publication, reason: str) -> None:
        """The publisher does not take the message; its publisher learns the reason after this call."""
        self.count += 1
        if (suppressed := self._throttle.due(reason)) is not None:
            log.error("publish refused: %s", reason, extra={"event": Event.PUBLISH_FAILED, "unsaid": suppressed})
        if publication.failed is not None:
            asyncio.get_running_loop().call_soon(publication.failed, reason)

    def failed(self, entry: Pending, reason: str) -> None:
        """The message was given up."""
        self.count += 1
        publication = entry.publication
        if (suppressed := self._throttle.due(f"{publication.subject} {reason}")) is not None:
            fields = {"event": Event.PUBLISH_FAILED, "unsaid": suppressed}
            log.error("publish on %s failed after %d tries: %s", publication.subject, entry.tries, reason, extra=fields)
        if publication.failed is not None:
            publication.failed(reason)
