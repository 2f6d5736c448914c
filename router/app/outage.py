"""Pause the consumers during an outage of the store: pull nothing whose effect could not be written."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from router.bus.consuming.pull_loop import PullLoop
from router.errors import StoreError
from router.telemetry import Telemetry

log = logging.getLogger("router.app")


class StoreOutage:
    """Pauses the consumers during an outage. They return their messages: other pods may still reach the store."""

    def __init__(
        self,
        loops: Mapping[str, PullLoop],
        ping: Callable[[], Awaitable[None]],
        telemetry: Telemetry,
        *,
        retry_s: float = 0.5,
    ) -> None:
        self._loops = list(loops.values())
        self._ping = ping
        self._paused = telemetry.consumers_paused
        self._retry_s = retry_s
        self._recovery: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Pause the consumers until the store answers again. No effect during a known outage."""
        if self._recovery is None:
            self._paused.set(1)
            for loop in self._loops:
                loop.pause()
            self._recovery = asyncio.get_running_loop().create_task(self._until_back())

    async def _until_back(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            try:
                await self._ping()
            except StoreError as fault:
                log.debug("store unavailable; consumers stay paused: %s", fault)
            else:
                break
        self._recovery = None
        self._paused.set(0)
        for loop in self._loops:
            loop.resume()

    async def stop(self) -> None:
        """Stop waiting for the store."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
