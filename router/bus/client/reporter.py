"""Events of the connection: counted, logged, and passed to listeners."""

import logging
import re
import time
from collections.abc import Callable
from typing import Any

import nats.errors

from router.log_throttle import LogThrottle
from router.telemetry.events import Event

log = logging.getLogger(__name__)


_REFUSED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE).search
_MAX_REFUSED = 256


class BusCounters:
    """Totals since the start, for metrics."""

    def __init__(self) -> None:
        self.connects = 0
        self.slow_consumers = 0


class Reporter:
    """The callbacks for nats-py. An error in a listener is logged and does not affect other listeners."""

    def __init__(self) -> None:
        self.counters = BusCounters()
        self.on_connect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_error: list[Callable[[Exception], None]] = []
        self.on_publish_refused: list[Callable[[str, str], None]] = []
        self.on_refused: list[Callable[[str, str], None]] = []
        self.last_error = ""
        # By verb and subject.
        self._refused: set[tuple[str, str]] = set()
        self.is_up = False
        self.closing = False
        self._throttle = LogThrottle(time.monotonic)

    def connected(self) -> None:
        """Report a connection: the first one or a reconnect."""
        self.is_up = True
        self._throttle.over()
        self._refused.clear()
        self.last_error = ""
        self.counters.connects += 1
        event = Event.BUS_CONNECTED if self.counters.connects == 1 else Event.BUS_BACK
        log.info("connected to NATS", extra={"event": event, "connects": self.counters.connects})
        _notify(self.on_connect)

    async def disconnected(self) -> None:
        """Report a lost connection; a call without a connection is ignored."""
        if self.closing or not self.is_up:
            return
        self.is_up = False
        log.warning("disconnected from NATS", extra={"event": Event.BUS_AWAY})
        _notify(self.on_disconnect)

    async def lame_duck(self) -> None:
        """Log that the server will shut down; nats-py connects to another one then."""
        log.warning("NATS server is shutting down (lame duck)", extra={"event": Event.BUS_AWAY})

    async def failed(self, error: Exception) -> None:
        """Report an error; without a connection the log has one line per minute."""
        event = Event.BUS_ERROR
        self.last_error = str(error) or repr(error)
        refused = _REFUSED(self.last_error)
        if refused is not None:
            self._permission_refused(refused[1].lower(), refused[2])
        elif isinstance(error, nats.errors.SlowConsumerError) or "slow consumer" in str(error).lower():
            self.counters.slow_consumers += 1
            event = Event.BUS_SLOW_CONSUMER
        if refused is not None:
            pass  # logged, and once a minute only: each message may be refused
        elif self.is_up:
            log.error("NATS error: %s", error, exc_info=error, extra={"event": event})
        elif self._throttle.due() is not None:
            log.warning("cannot reach NATS; retrying: %r", error, extra={"event": Event.BUS_AWAY})
        _notify(self.on_error, error)

    def permission(self, verb: str, subject: str) -> str | None:
        """Why the server refused `verb` (publish, subscription) on the subject, if it did on this connection."""
        return _words(verb, subject) if (verb, subject) in self._refused else None

    def inbox_permission(self, prefix: str) -> str | None:
        """Why the server refused a subscription to an inbox with this prefix; None: it did not."""
        start = f"{prefix}."
        if any(verb == "subscription" and subject.startswith(start) for verb, subject in self._refused):
            return f"{_words('subscription', f'{prefix}.>')}: permit it, or set ROUTER_NATS_INBOX_PREFIX"
        return None

    def _permission_refused(self, verb: str, subject: str) -> None:
        if len(self._refused) < _MAX_REFUSED:
            self._refused.add((verb, subject))
        words = _words(verb, subject)
        if (unsaid := self._throttle.due(words)) is not None:
            log.error(words, extra={"event": Event.BUS_ERROR, "unsaid": unsaid})
        _notify(self.on_refused, verb, subject)
        if verb == "publish":
            _notify(self.on_publish_refused, subject, words)


def _words(verb: str, subject: str) -> str:
    return f"NATS does not permit this user to {'publish' if verb == 'publish' else 'subscribe'} to {subject}"


def _notify(callbacks: list[Callable[..., None]], *arguments: Any) -> None:
    for callback in list(callbacks):
        try:
            callback(*arguments)
        except Exception:  # raised into nats-py, it would end the reconnects
            log.exception("listener of the bus failed", extra={"event": Event.BUG})
