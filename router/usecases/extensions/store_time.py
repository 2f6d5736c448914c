"""The time that one request with extensions may wait for the store; the time of its extensions does not count."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from router.errors import OutcomeUnknown

T = TypeVar("T")


class StoreTime:
    """`wait_s` in all, of which `waited_s` is spent already."""

    def __init__(self, wait_s: float, waited_s: float = 0.0) -> None:
        self._wait_s = wait_s
        self._spent_s = waited_s
        self._now = asyncio.get_running_loop().time

    @property
    def since(self) -> float | None:
        """Since when a row that is queued now has waited (loop time in s); None: since now."""
        return self._now() - self._spent_s if self._spent_s else None

    async def spent_on(self, row: Awaitable[T]) -> T:
        """Await a row, whose wait the store itself bounds."""
        started = self._now()
        try:
            return await row
        finally:
            self._spent_s += self._now() - started

    async def of(self, act: Awaitable[T]) -> T:
        """Await an act on the store.

        :raises OutcomeUnknown: the time is over; the act may still be executed.
        :raises StoreError: the store failed.
        """
        try:
            async with asyncio.timeout(max(0.0, self._wait_s - self._spent_s)):
                return await self.spent_on(act)
        except TimeoutError as fault:
            raise OutcomeUnknown("Redis: the request has waited for ROUTER_DECIDE_WAIT") from fault
