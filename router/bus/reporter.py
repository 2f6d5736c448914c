"""What happens to the connection: counted, logged, and told to whoever listens."""

import logging
import time
from collections.abc import Callable
from typing import Any

import nats.errors

from router.log_throttle import LogThrottle
from router.telemetry.events import Event

log = logging.getLogger(__name__)


class BusCounters:
    """Running totals since the start, for the metrics."""

    def __init__(self) -> None:
        self.connects = 0
        self.slow_consumers = 0


class Reporter:
    """nats-py's callbacks. A fault in a listener is logged and hurts nobody else."""

    def __init__(self) -> None:
        self.counters = BusCounters()
        self.on_connect: list[Callable[[], None]] = []
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_error: list[Callable[[Exception], None]] = []
        self.is_up = False
        self.closing = False
        self._throttle = LogThrottle(time.monotonic)

    def connected(self) -> None:
        """A connection stands, the first or another one."""
        self.is_up = True
        self._throttle.over()
        self.counters.connects += 1
        event = Event.BUS_CONNECTED if self.counters.connects == 1 else Event.BUS_BACK
        log.info("connected to NATS", extra={"event": event, "connects": self.counters.connects})
        _tell(self.on_connect)

    async def disconnected(self) -> None:
        """The connection is lost; also called for one that never stood."""
        if self.closing or not self.is_up:
            return
        self.is_up = False
        log.warning("disconnected from NATS", extra={"event": Event.BUS_AWAY})
        _tell(self.on_disconnect)

    async def lame_duck(self) -> None:
        """The server will end soon; nats-py moves on when it does."""
        log.warning("the NATS server is going away (lame duck)", extra={"event": Event.BUS_AWAY})

    async def failed(self, error: Exception) -> None:
        """Logged; while there is no connection, once a minute."""
        event = Event.BUS_ERROR
        if isinstance(error, nats.errors.SlowConsumerError) or "slow consumer" in str(error).lower():
            self.counters.slow_consumers += 1
            event = Event.BUS_SLOW_CONSUMER
        if self.is_up:
            log.error("NATS error: %s", error, exc_info=error, extra={"event": event})
        elif self._throttle.due() is not None:
            log.warning("cannot reach NATS, still trying: %r", error, extra={"event": Event.BUS_AWAY})
        _tell(self.on_error, error)


def _tell(callbacks: list[Callable[..., None]], *what: Any) -> None:
    for callback in list(callbacks):
        try:
            callback(*what)
        except Exception:  # nats-py would stop reconnecting over it
            log.exception("a listener of the bus failed", extra={"event": Event.BUG})
