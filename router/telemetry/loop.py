"""Event loop lag: how late the loop runs its timers, the first sign of blocking code."""

import asyncio

from router.telemetry.tally import Buckets


class LoopLag:
    """Measures every `every_s` seconds from `start` to `stop`; a timer is set only after the previous one ran."""

    def __init__(self, buckets: Buckets, every_s: float = 0.25) -> None:
        self._buckets = buckets
        self._every_s = every_s
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start measuring; call from the loop that is measured."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop measuring; idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_at(loop.time() + self._every_s, self._ran, loop, loop.time() + self._every_s)

    def _ran(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._buckets.observe(max(0.0, loop.time() - due))
        self._arm(loop)
