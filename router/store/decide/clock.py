"""Redis time, as a pod estimates it between replies."""

import asyncio
import time
from collections.abc import Callable

STEP_MS = 1_000
# Two clocks that are not stepped drift apart by at most 500 ppm (NTP's fastest slew), twice that for both.
_DRIFT = 0.001


class RedisClock:
    """Redis time in ms: that of the last reply plus the time since. `offset_ms` is None before the first reply.

    Redis read the time of a reply at some moment between the call and its reply. So the true offset lies in a range; a
    slow reply makes the range wide, never wrong. When the ranges of two replies are more than a second apart, Redis'
    clock was stepped (or this pod's host was suspended). `on_step` is then called with the distance in ms, below 0 for
    a step back.
    """

    __slots__ = ("_answered_s", "_highest_ms", "_loop", "_on_step", "offset_ms")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_step: Callable[[float], None] = lambda _ms: None) -> None:
        self._loop = loop
        self._on_step = on_step
        self._answered_s = self._highest_ms = 0.0
        self.offset_ms: float | None = None

    def now_ms(self) -> float:
        """Redis time; the pod's own clock before the first reply."""
        offset = self.offset_ms
        return time.time() * 1000 if offset is None else self._loop.time() * 1000 + offset

    def set(self, seconds: int, micros: int, sent_s: float) -> None:
        """Learn the time of a reply that has just arrived; its call was sent at `sent_s` (the loop's time)."""
        now_s = self._loop.time()
        offset = seconds * 1000 + micros / 1000 - now_s * 1000
        before, highest_before = self.offset_ms, self._highest_ms
        self.offset_ms, self._highest_ms = offset, offset + (now_s - sent_s) * 1000
        if before is not None and not -STEP_MS < offset - before < STEP_MS:
            drift = (now_s - self._answered_s) * 1000 * _DRIFT
            if offset - highest_before > STEP_MS + drift:
                self._on_step(offset - highest_before)
            elif before - self._highest_ms > STEP_MS + drift:
                self._on_step(self._highest_ms - before)
        self._answered_s = now_s

    def forget(self) -> None:
        """Drop the estimate, so that the time is asked for before the next row is sent."""
        self.offset_ms = None
