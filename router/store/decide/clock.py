"""Redis time, as a pod estimates it between replies."""

import asyncio
import time


class RedisClock:
    """Redis time in ms: that of the last reply plus the time since. `offset_ms` is None before the first reply."""

    __slots__ = ("_loop", "offset_ms")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.offset_ms: float | None = None

    def now_ms(self) -> float:
        """Redis time; the pod's own clock before the first reply."""
        offset = self.offset_ms
        return time.time() * 1000 if offset is None else self._loop.time() * 1000 + offset

    def set(self, seconds: int, micros: int) -> None:
        """A reply that has just arrived carries this time."""
        self.offset_ms = seconds * 1000 + micros / 1000 - self._loop.time() * 1000

    def forget(self) -> None:
        """Ask for the time again before the next row is sent."""
        self.offset_ms = None
