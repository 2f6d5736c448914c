"""Extends the ack wait of messages while their handler runs, for a bounded time: then another pod gets them."""

import asyncio
from collections.abc import Callable

from router.bus.consuming.delivery import Delivery

_MAX_EXTENSIONS = 30


class AckWait:
    """Extends the ack wait of one batch, and of the messages that `arrived` meanwhile, three times per `ack_wait_s`."""

    def __init__(self, ack_wait_s: float, arrived: Callable[[], list[Delivery]]) -> None:
        self._every_s = ack_wait_s / 3
        self._arrived = arrived
        self._timer: asyncio.TimerHandle | None = None

    def extend(self, batch: list[Delivery]) -> None:
        """Extend from now on, at most 30 times, until `end`."""
        self._later(batch, _MAX_EXTENSIONS)

    def end(self) -> None:
        """The batch is handled."""
        if self._timer is not None:
            self._timer.cancel()

    def _later(self, batch: list[Delivery], left: int) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._every_s, self._extend, batch, left) if left else None

    def _extend(self, batch: list[Delivery], left: int) -> None:
        for delivery in (*batch, *self._arrived()):
            delivery.in_progress()
        self._later(batch, left - 1)
