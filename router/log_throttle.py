"""Throttles log lines that repeat while a condition lasts: one at its beginning, then one per minute."""

from collections import OrderedDict
from collections.abc import Callable

EVERY_S = 60.0
_MAX_CONDITIONS = 64


class LogThrottle:
    """Decides when a repeated message is due. `clock` is monotonic, in seconds; each `condition` is throttled alone."""

    def __init__(self, clock: Callable[[], float], every_s: float = EVERY_S) -> None:
        self._clock = clock
        self._every_s = every_s
        # Per condition: time of the last message, and messages suppressed since. Bounded: the oldest is dropped first.
        self._conditions: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def due(self, condition: str = "") -> int | None:
        """Number of suppressed messages if the message is due now, else None."""
        now = self._clock()
        last_at, suppressed = self._conditions.get(condition, (-self._every_s, 0))
        if now - last_at < self._every_s:
            self._conditions[condition] = last_at, suppressed + 1
            return None
        self._conditions[condition] = now, 0
        self._conditions.move_to_end(condition)
        if len(self._conditions) > _MAX_CONDITIONS:
            self._conditions.popitem(last=False)
        return suppressed

    def over(self) -> None:
        """The conditions have ended: the next message is due at once."""
        self._conditions.clear()
