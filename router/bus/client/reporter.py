"""Events of the connection: counted, logged, and passed to listeners."""

import logging
import re
import time
from collections.abc import Callable

import nats.errors

from router.bus.client.causes import cause, is_aftermath
from router.bus.client.notify import notify
from router.bus.client.options import BusOptions
from router.bus.client.permissions import Permissions, Verb
from router.log_throttle import LogThrottle
from router.telemetry.events import Event

log = logging.getLogger(__name__)


_REFUSED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE).search


_AFTERMATH_S = 5.0


class BusCounters:
    """Totals since the start, for metrics."""

    def __init__(self) -> None:
        self.connects = 0
        self.slow_consumers = 0


class Reporter:
    """The callbacks for nats-py. An error in a listener is logged and does not affect other listeners."""

    def __init__(self, permissions: Permissions, options: BusOptions) -> None:
        self._permissions = permissions
        self._options = options
        self._cause_at = float("-inf")
        self.counters = BusCounters()
        self.on_connect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_lame_duck: list[Callable[[], None]] = []
        self.on_error: list[Callable[[Exception], None]] = []
        self.last_error = ""
        self.is_up = False
        self.closing = False
        self._throttle = LogThrottle(time.monotonic)

    def connected(self) -> None:
        """Report a connection: the first one or a reconnect."""
        self.is_up = True
        self._throttle.over()
        self._permissions.connected()
        self.last_error = ""
        self.counters.connects += 1
        event = Event.BUS_CONNECTED if self.counters.connects == 1 else Event.BUS_BACK
        log.info("connected to NATS", extra={"event": event, "connects": self.counters.connects})
        notify(self.on_connect)

    async def disconnected(self) -> None:
        """Report a lost connection; a call without a connection is ignored."""
        if self.closing or not self.is_up:
            return
        self.is_up = False
        log.warning("disconnected from NATS", extra={"event": Event.BUS_AWAY})
        notify(self.on_disconnect)

    async def lame_duck(self) -> None:
        """Log that the server will shut down; nats-py connects to another one then."""
        log.warning("NATS server is shutting down (lame duck)", extra={"event": Event.BUS_AWAY})
        notify(self.on_lame_duck)

    async def failed(self, error: Exception) -> None:
        """Report an error; without a connection the log has one line per minute for each cause."""
        event = Event.BUS_ERROR
        self._set_cause(error)
        refused = _REFUSED(str(error))
        if refused is not None:
            verb: Verb = "publish" if refused[1].lower() == "publish" else "subscribe"
            self._permissions.refused(verb, refused[2])
        elif isinstance(error, nats.errors.SlowConsumerError) or "slow consumer" in str(error).lower():
            self.counters.slow_consumers += 1
            event = Event.BUS_SLOW_CONSUMER
        if refused is not None:
            pass  # logged, and once a minute only: each message may be refused
        elif self.is_up:
            log.error("NATS error: %s", error, exc_info=error, extra={"event": event})
        elif self._throttle.due(self.last_error) is not None:
            log.warning("cannot reach NATS; retrying: %s", self.last_error, extra={"event": Event.BUS_AWAY})
        notify(self.on_error, error)

    def _set_cause(self, error: Exception) -> None:
        """Set `last_error`, unless the error only says that the connection is closed: its cause was reported just
        before.
        """
        now = time.monotonic()
        if is_aftermath(error) and self.last_error and now - self._cause_at < _AFTERMATH_S:
            return
        self.last_error, self._cause_at = cause(error, self._options), now
