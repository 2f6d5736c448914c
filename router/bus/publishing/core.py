"""Publishes messages whose subject no stream covers, with core NATS: once, and without an ack."""

import logging

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.publishing.pending import Pending
from router.errors import BusError
from router.telemetry.events import Event

log = logging.getLogger(__name__)

_MAX_LOGGED_SUBJECTS = 4096


class CorePublish:
    """Counts what it publishes, and logs each subject once."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._logged: set[str] = set()
        self.published = 0

    def publish(self, subject: str, entry: Pending) -> str | None:
        """Queue the message; returns why it cannot be sent, else None."""
        try:
            self._bus.send(wire.publish(entry.subject, reply=b"", block=entry.block, payload=entry.payload))
        except BusError as error:
            return str(error)
        self.published += 1
        if (
            not entry.publication.core_is_enough
            and subject not in self._logged
            and len(self._logged) < _MAX_LOGGED_SUBJECTS
        ):
            self._logged.add(subject)
            text = "no stream covers %s; published with core NATS, without an ack: the deadline is the guarantee"
            log.warning(text, subject, extra={"event": Event.PUBLISHED_CORE})
        return None
