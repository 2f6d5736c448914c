"""Bounds the dead letters that outsiders cause by unusable messages: unreadable ones, or results for another tenant's
task.

Within a minute each cause (subject and reason) gets at most `PER_CAUSE` dead letters of its own, and all causes of a
subject together `PER_SUBJECT`. Further messages are counted by cause, with their first and last place in the stream.
When the minute is over, one dead letter per cause reports the count. So a flood leaves evidence of each of its causes,
and cannot fill the DLQ. Messages that the router itself failed on are never left out: see `DeadLetters.give_up`.
"""

from collections.abc import Callable

from msgspec import Struct

from router.ports.bus import Delivery

WINDOW_S = 60.0
PER_CAUSE = 20
PER_SUBJECT = 200
_MAX_CAUSES = 64
_OTHER = "other causes"


class LeftOut(Struct):
    """Messages of one cause that got no dead letter of their own; sequences are those of their stream."""

    subject: str
    reason: str
    error_code: str
    count: int
    first_sequence: int
    last_sequence: int
    first_stored_ms: int


class _Minute:
    def __init__(self, now: float) -> None:
        self.began = now
        self.letters = 0
        self.by_cause: dict[str, int] = {}
        self.left_out: dict[str, LeftOut] = {}


class DeadLetterLimit:
    """The bound of one pod. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minutes: dict[str, _Minute] = {}

    def admits(self, subject: str, *, reason: str, error_code: str, delivery: Delivery) -> bool:
        """Whether the message gets a dead letter; otherwise it is counted. A minute begins with its first message."""
        minute = self._minutes.get(subject)
        if minute is None:
            minute = self._minutes[subject] = _Minute(self._clock())
        of_cause = minute.by_cause.get(reason, 0)
        if minute.letters < PER_SUBJECT and of_cause < PER_CAUSE:
            minute.letters += 1
            minute.by_cause[reason] = of_cause + 1
            return True
        if reason not in minute.left_out and len(minute.left_out) >= _MAX_CAUSES:
            reason = error_code = _OTHER
        found = minute.left_out.get(reason)
        if found is None:
            minute.left_out[reason] = LeftOut(
                subject=subject,
                reason=reason,
                error_code=error_code,
                count=1,
                first_sequence=delivery.sequence,
                last_sequence=delivery.sequence,
                first_stored_ms=delivery.stored_ms,
            )
        else:
            found.count += 1
            found.first_sequence = min(found.first_sequence, delivery.sequence)
            found.last_sequence = max(found.last_sequence, delivery.sequence)
        return False

    def ended(self, *, all_minutes: bool = False) -> list[LeftOut]:
        """Take the counts of the minutes that have ended, or of all minutes; they are removed here."""
        now = self._clock()
        over = [s for s, m in self._minutes.items() if all_minutes or now - m.began >= WINDOW_S]
        return [left_out for s in over for left_out in self._minutes.pop(s).left_out.values()]
