"""What a lane awaits beside its calls: a connection, and the time of its node."""

import asyncio
from collections.abc import Callable

from redis.exceptions import ResponseError

from router.errors import StoreError
from router.store.decide.availability import Availability
from router.store.decide.call_deadline import CallDeadlines
from router.store.decide.calls import LaneSettings
from router.store.decide.clock import RedisClock
from router.store.servers.link import Link

_TIME = [("TIME",)]


class Connecting:
    """Connects the link of a lane. It must have the link for itself meanwhile. `refuse` answers all waiting rows."""

    def __init__(
        self,
        link: Link,
        settings: LaneSettings,
        availability: Availability,
        clock: RedisClock,
        deadlines: CallDeadlines,
        *,
        refuse: Callable[[], None],
    ) -> None:
        self._link = link
        self._settings = settings
        self._availability = availability
        self._clock = clock
        self._deadlines = deadlines
        self._refuse = refuse
        self._loop = asyncio.get_running_loop()

    async def ping(self) -> bool:
        """Connect if needed, and learn Redis time. Down unless the second of two answers came within the deadline."""
        try:
            # The first answer may include the time to connect.
            await self._link.ask(_TIME)
            started = self._loop.time()
            (reply,) = await self._link.ask(_TIME)
        except StoreError as fault:
            self._availability.set_down(str(fault))
            return False
        if isinstance(reply, ResponseError):
            self._availability.set_down(str(reply))
            return False
        took_ms = (self._loop.time() - started) * 1000
        self._clock.set(int(reply[0]), int(reply[1]), started)
        if took_ms > self._settings.deadline_ms:
            self._availability.set_down(f"a ping took {took_ms:.0f} ms")
            return False
        self._availability.set_up("answers again")
        return True

    async def reconnect(self) -> None:
        """Make another connection until Redis answers within the deadline. Late replies of the old one are dropped.

        Rows that wait meanwhile are answered at their deadlines, and refused after a try that failed.
        """
        self._link.close()
        while True:
            now = self._loop.time()
            if self._clock.offset_ms is None:
                self._deadlines.start_waiting(now)
            elif not self._availability.down:
                self._deadlines.start((), now)
            try:
                if await self.ping():
                    return
            finally:
                self._deadlines.stop()
            self._refuse()
            await asyncio.sleep(self._settings.retry_ms / 1000)

    async def look(self) -> StoreError | None:
        """Ask for the time. Returns why there is no answer."""
        started = self._loop.time()
        self._deadlines.start((), started)
        try:
            (reply,) = await self._link.ask(_TIME)
        except StoreError as fault:
            return fault
        finally:
            self._deadlines.stop()
        if self._availability.answered(self._loop.time() - started) and not isinstance(reply, ResponseError):
            # Times of tasks are Redis time, also on a pod that decides nothing.
            self._clock.set(int(reply[0]), int(reply[1]), started)
        return None
