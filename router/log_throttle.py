"""For log lines that would come again and again while something is away: at its beginning, then once a minute."""

from collections import OrderedDict
from collections.abc import Callable

EVERY_S = 60.0
_MAXIMUM = 64


class LogThrottle:
    """Says when to say it. `clock` is monotonic, in seconds; `what` tells apart what goes on at the same time."""

    def __init__(self, clock: Callable[[], float], every_s: float = EVERY_S) -> None:
        self._clock = clock
        self._every_s = every_s
        # When each was said last and how often it was not since; bounded: the one that was said longest ago goes first.
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def due(self, what: str = "") -> int | None:
        """How often it was left unsaid since it was said last, if it is time to say it; None: it is not."""
        now = self._clock()
        at, unsaid = self._said.get(what, (-self._every_s, 0))
        if now - at < self._every_s:
            self._said[what] = at, unsaid + 1
            return None
        self._said[what] = now, 0
        self._said.move_to_end(what)
        if len(self._said) > _MAXIMUM:
            self._said.popitem(last=False)
        return unsaid

    def over(self) -> None:
        """Whatever it was is over: the next time is a beginning."""
        self._said.clear()
