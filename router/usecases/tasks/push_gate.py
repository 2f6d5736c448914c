"""Whether pushed tasks are admitted: not while a stream that they need is missing, or does not store them.

    stream missing ─────────────────────────────▶ every push is refused, until a check finds the stream
    stream refuses, or has no answer for a second ▶ pushes to its subjects are refused; one a second goes through as a
                                                    probe, and the first stored message ends it
    results are not stored, or not received ───────────────────▶ every push is refused: its task would run and time out

Requests that push nothing are decided all the same.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from router.domain.alert import Condition
from router.domain.decide.decision import Code, Refused
from router.ports.alerts import AlertSink
from router.ports.bus import NO_ACK
from router.wire import subjects

RETRY_MS = 1_000
ALERT_S = 10.0
QUIET_S = 60.0
"""A stream without news for so long counts as working: the next push shows whether it is."""
_MAX_STREAMS = 256
_NOT_ANSWERED = "; if NATS logs a critical write error, its disk was full or files are lost: restart that server"


class _Refusing(Struct):
    """A stream that stores nothing. Times are monotonic, in seconds."""

    words: str
    since_s: float
    heard_s: float
    next_probe_s: float


class PushGate:
    """Implements `ports.bus.StreamTrouble`. `stream_of` names the fleet's stream of a subject.

    `switched` is called with the reason when dispatch is off for the fleet's streams, and with None when it is on.
    """

    def __init__(
        self,
        alerts: AlertSink,
        stream_of: Callable[[str], str | None],
        switched: Callable[[str | None], None],
        now_s: Callable[[], float],
    ) -> None:
        self._alerts = alerts
        self._stream_of = stream_of
        self._switched = switched
        self._now_s = now_s
        self._missing: dict[str, str] = {}
        self._refusing: dict[str, _Refusing] = {}
        self._unheard: str | None = None
        self._results = stream_of(subjects.RESULT)
        self._closed = False

    def refusal(self, subject: str | None) -> Refused | None:
        """Refuse a push to this subject (None: the default one), or let it pass as None."""
        return self._refusal(subject or subjects.ASSIGN) if self._closed else None

    def _refusal(self, subject: str) -> Refused | None:
        if self._missing:
            return _refused(next(iter(self._missing.values())))
        if self._unheard is not None:
            return _refused(self._unheard)
        stream = self._stream_of(subject) or subject
        if self._results != stream and (results := self._refusing.get(self._results or "")) is not None:
            return _refused(_reason(self._results or "", words=results.words))
        refusing = self._refusing.get(stream)
        if refusing is None:
            return None
        now_s = self._now_s()
        if now_s >= refusing.next_probe_s:
            refusing.next_probe_s = now_s + RETRY_MS / 1000
            return None
        return _refused(_reason(stream, words=refusing.words))

    def missing(self, reasons: Mapping[str, str]) -> None:
        """Set the streams that pushes need and that are missing, with the reason for each."""
        for stream in self._missing.keys() - reasons.keys():
            if stream not in self._refusing:
                self._alerts.resolve(Condition.STREAM_UNAVAILABLE, stream)
        for stream, reason in reasons.items():
            self._alerts.raise_(Condition.STREAM_UNAVAILABLE, stream, message=reason, metadata={"stream": stream})
        self._missing = dict(reasons)
        self._changed()

    def unheard(self, reason: str | None) -> None:
        """Set the reason why this pod does not receive results; None: it receives them."""
        if reason != self._unheard:
            self._unheard = reason
            self._changed()

    def reason(self, stream: str) -> str | None:
        """Why a stream stores no published messages; None: it stores them, as far as is known."""
        refusing = self._refusing.get(stream)
        return None if refusing is None else _reason(stream, words=refusing.words)

    def refusing(self, stream: str, *, words: str) -> None:
        """See `ports.bus.StreamTrouble.refusing`."""
        now_s = self._now_s()
        known = self._refusing.get(stream)
        if known is not None:
            known.words, known.heard_s = words, now_s
        elif len(self._refusing) < _MAX_STREAMS:
            self._refusing[stream] = _Refusing(words, now_s, now_s, now_s + RETRY_MS / 1000)
        self._changed()

    def stored(self, stream: str) -> None:
        """See `ports.bus.StreamTrouble.stored`."""
        if self._refusing.pop(stream, None) is not None:
            if stream not in self._missing:
                self._alerts.resolve(Condition.STREAM_UNAVAILABLE, stream)
            self._changed()

    def tick(self) -> None:
        """Call once a second: raises the alerts that are due, and forgets streams without recent news."""
        now_s = self._now_s()
        for stream, refusing in list(self._refusing.items()):
            if now_s - refusing.heard_s >= QUIET_S:
                self.stored(stream)
            elif now_s - refusing.since_s >= ALERT_S:
                reason = _reason(stream, words=refusing.words)
                self._alerts.raise_(Condition.STREAM_UNAVAILABLE, stream, message=reason, metadata={"stream": stream})

    def _changed(self) -> None:
        self._closed = bool(self._missing or self._refusing or self._unheard)
        reasons = list(self._missing.values())
        assign = self._stream_of(subjects.ASSIGN)
        reasons += [
            _reason(s, words=self._refusing[s].words) for s in (assign, self._results) if s and s in self._refusing
        ]
        if self._unheard is not None:
            reasons.append(self._unheard)
        self._switched(reasons[0] if reasons else None)


def _reason(stream: str, *, words: str) -> str:
    hint = _NOT_ANSWERED if words == NO_ACK else ""
    return f"stream {stream} does not store messages: {words}{hint}"


def _refused(reason: str) -> Refused:
    return Refused(Code.UNAVAILABLE, f"the task cannot be dispatched now: {reason}", {"retry_after_ms": RETRY_MS})
