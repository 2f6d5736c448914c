"""Final results for waiters in this pod: one subscription, and a subject for each waiter below it."""

import asyncio
from itertools import count

from router.bus.client.connection import Bus


class BusFinalInbox:
    """Implements `ports.finals.FinalInbox`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._prefix = bus.new_inbox()
        self._numbers = count()
        self._waiting: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._closed = False

    async def open(self) -> None:
        """Subscribe.

        :raises PermissionRefused: the server does not permit it.
        """
        await self._bus.subscribe(f"{self._prefix}.*", self._on_message)

    def expect(self) -> "tuple[str, asyncio.Future[bytes | None]]":
        """See `ports.finals.FinalInbox`."""
        subject = f"{self._prefix}.{next(self._numbers)}"
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_result(None)
        self._waiting[subject.encode()] = future
        return subject, future

    def forget(self, subject: str) -> None:
        """See `ports.finals.FinalInbox`."""
        self._waiting.pop(subject.encode(), None)

    def close(self) -> None:
        """End every wait, now and later."""
        self._closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        future = self._waiting.get(subject)
        if future is not None and not future.done():
            future.set_result(data)
