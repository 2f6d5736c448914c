"""An outage of the store, as the consumers see it: nothing is pulled that could not be written."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from router.bus.consumer import PullLoop
from router.errors import StoreError
from router.telemetry import Telemetry

log = logging.getLogger("router.app")


class StoreOutage:
    """While the store is away the consumers pull nothing and give back what they hold: other pods may reach it."""

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
        self._waiting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The store does not answer: pause until it does. Nothing happens when it is known already."""
        if self._waiting is None:
            self._paused.set(1)
            for loop in self._loops:
                loop.pause()
            self._waiting = asyncio.get_running_loop().create_task(self._until_back())

    async def _until_back(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            try:
                await self._ping()
            except StoreError as fault:
                log.debug("the consumers wait for the store: %s", fault)
            else:
                break
        self._waiting = None
        self._paused.set(0)
        for loop in self._loops:
            loop.resume()

    async def stop(self) -> None:
        """Wait for it no longer."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
