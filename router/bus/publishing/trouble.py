"""Finds streams that store nothing for a second, and reports them until they store a message."""

from collections.abc import Iterable
from itertools import islice

from router.bus.publishing.pending import Pending
from router.bus.streams.registry import Streams
from router.ports.bus import StreamTrouble

TROUBLE_S = 1.0
_SAMPLE = 1024


class TroubleWatch:
    """Reports to `sink`, once it is set. `reported`: streams that have stored nothing since they were reported."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.reported: set[str] = set()
        self.sink: StreamTrouble | None = None

    def scan(self, now: float, tried: Iterable[Pending], waiting: Iterable[Pending]) -> None:
        """Report the streams of messages that have no ack for too long. `now`: loop time in seconds.

        `tried` were sent at least once; `waiting` have no place in the window.
        """
        if self.sink is None:
            return
        worst: dict[str, str] = {}
        for entry in islice(tried, _SAMPLE):
            if now - entry.since >= TROUBLE_S:
                worst.setdefault(entry.publication.subject, entry.reason)
        for entry in islice(waiting, _SAMPLE):
            if now - entry.since >= TROUBLE_S:
                worst.setdefault(entry.publication.subject, "messages of other streams are not acknowledged")
        for subject, words in worst.items():
            self.refused(subject, words)

    def refused(self, subject: str, words: str) -> None:
        """Report the stream of a subject at once."""
        if self.sink is not None:
            stream = self._streams.stream_of(subject) or subject
            self.reported.add(stream)
            self.sink.refusing(stream, words=words)

    def stored(self, subject: str) -> None:
        """Report that the stream of a subject works again, if it was in trouble."""
        stream = self._streams.stream_of(subject) or subject
        if stream in self.reported:
            self.reported.discard(stream)
            if self.sink is not None:
                self.sink.stored(stream)
