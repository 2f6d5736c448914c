"""Detects that the pod stood still (suspended, starved of CPU, or blocked), and which requests waited meanwhile.

Requests that came while the pod stood still wait in the connection, and their callers may have given up. A message has
no time stamp, but a connection keeps its order: what comes before the reply to a ping, sent after the standstill, was
sent while the pod stood still. Such requests are refused, so their callers repeat them; deciding them late would charge
limits for callers who are gone. A few of them may be younger than their deadline: the pod cannot tell.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from router.errors import BusError
from router.telemetry import Event

log = logging.getLogger("router.decide")

BEAT_S: Final = 0.25
STANDSTILL_S: Final = 1.0


class Standstill:
    """Watches the loop from `start` to `stop`.

    `caught_up` returns when everything has been read that was sent to this pod before the call. A request that arrives
    after loop time `alive_until` has waited: call `notice`. While the loop runs normally, `alive_until` is in the
    future.
    """

    def __init__(self, caught_up: Callable[[], Awaitable[None]]) -> None:
        self._caught_up = caught_up
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.alive_until = float("inf")

    def start(self) -> None:
        """Begin to watch."""
        self._beat()

    def stop(self) -> None:
        """Watch no longer; idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.alive_until = float("inf")

    def notice(self, now: float) -> None:
        """Start to catch up, unless that has started; `now` is loop time, after `alive_until`."""
        if self._task is None:
            stood_s = now - self.alive_until + STANDSTILL_S
            log.warning(
                "the pod stood still for %.1f s: requests that waited meanwhile are refused",
                stood_s,
                extra={"event": Event.POD_STOOD_STILL, "seconds": round(stood_s, ndigits=1)},
            )
            self.alive_until = float("-inf")
            self._task = self._loop.create_task(self._catch_up(), name="standstill")

    def _beat(self) -> None:
        now = self._loop.time()
        if now > self.alive_until:
            self.notice(now)
        else:
            self.alive_until = now + BEAT_S + STANDSTILL_S
        self._handle = self._loop.call_at(now + BEAT_S, self._beat)

    async def _catch_up(self) -> None:
        try:
            await self._caught_up()
        except BusError as fault:
            # The connection is new: the server has dropped what waited in the old one.
            log.debug("no reply to the ping after a standstill: %s", fault)
        self._task = None
        self.alive_until = self._loop.time() + BEAT_S + STANDSTILL_S
