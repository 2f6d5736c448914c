"""Limits the log lines that outsiders can cause: warnings and errors of one kind, with a count of the lines left out.

A *kind* is a place in the code. Within a minute a kind writes at most `SAME` lines of one text and `DISTINCT` lines in
all; the rest is counted. The count is in the field `left_out`: of the kind's next line, or of a separate line when the
minute is over. So a flood of bad messages costs a few lines a minute, and its different causes stay visible.
`LogThrottle` is stricter: one line a minute for a condition that lasts.
"""

import logging
from collections.abc import Callable, Iterator

from router.telemetry import Event

WINDOW_S = 60.0
SAME = 5
DISTINCT = 60

log = logging.getLogger("router.log_limit")


class _Kind:
    """The lines that one place in the code has written in the current minute."""

    __slots__ = ("began", "event", "left_out", "lines", "message", "texts")

    def __init__(self, now: float) -> None:
        self.began = now
        self.lines = 0
        self.left_out = 0
        self.texts: dict[int, int] = {}
        self.event = self.message = ""


class LogLimit(logging.Filter):
    """A filter of a handler. `clock` is monotonic, in seconds. Lines below warning pass."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        # By file and line, so the number of kinds is bounded by the code.
        self._kinds: dict[tuple[str, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; a line may get the field `left_out`."""
        if record.levelno < logging.WARNING or record.name == log.name:
            return True
        now = self._clock()
        place = record.pathname, record.lineno
        kind = self._kinds.get(place)
        if kind is None:
            kind = self._kinds[place] = _Kind(now)
        elif now - kind.began >= WINDOW_S:
            if kind.left_out:
                record.left_out = kind.left_out
            kind = self._kinds[place] = _Kind(now)
        text = hash(_text(record))
        same = kind.texts.get(text, 0)
        if same >= SAME or kind.lines >= DISTINCT:
            kind.left_out += 1
            kind.event, kind.message = str(getattr(record, "event", Event.LOG)), str(record.msg)
            return False
        kind.texts[text] = same + 1
        kind.lines += 1
        return True

    def flush(self) -> None:
        """Write the counts of the kinds whose minute is over. Call it about once a second."""
        for kind in self._ended():
            fields = {"event": Event.LOG_LIMITED, "left_out": kind.left_out, "of": kind.event, "line": kind.message}
            log.warning("lines of one kind were left out", extra=fields)

    def _ended(self) -> Iterator[_Kind]:
        now = self._clock()
        for place, kind in list(self._kinds.items()):
            if now - kind.began >= WINDOW_S:
                del self._kinds[place]
                if kind.left_out:
                    yield kind


def _text(record: logging.LogRecord) -> str:
    """What distinguishes two lines of a kind: message, reason, and the class of an error."""
    error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] is not None else ""
    fields = (getattr(record, name, "") for name in ("reason", "warning", "condition", "scope", "tenant_id"))
    return " ".join((record.getMessage(), error, *map(str, fields)))


def flush_left_out() -> None:
    """Write the counts of all handlers of this process."""
    for handler in logging.getLogger().handlers:
        for limit in handler.filters:
            if isinstance(limit, LogLimit):
                limit.flush()
