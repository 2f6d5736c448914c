"""How late the event loop runs its timers: the first sign that something blocks it."""

import asyncio

from router.telemetry.tally import Buckets


class LoopLag:
    """Measures every `every_s` seconds from `start` to `stop`; each timer is set only after the last one ran."""

    def __init__(self, buckets: Buckets, every_s: float = 0.25) -> None:
        self._buckets = buckets
        self._every_s = every_s
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; call from the loop to be measured."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """End; idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.call_at(loop.time() + self._every_s, self._ran, loop, loop.time() + self._every_s)

    def _ran(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._buckets.observe(max(0.0, loop.time() - due))
        self._arm(loop)
