"""Checks whether the stream of results stores them.

Workers publish results, so no pod notices when their stream stores nothing. After a NATS server's disk was full, or a
stream's files were lost, the server does not answer publishes to that stream until it is restarted, while everything
else works. So a pod that misses results publishes a message of its own to the stream: the probe. The probe is handled
like any publish (`router.ports.bus.StreamTrouble`): without an ack, the stream is reported until a probe is stored.

A pod misses results when a deadline has passed, or a worker reports that it could not publish, and this pod received no
result for `EVERY_S`.
"""

from collections.abc import Callable

import orjson

from router.ports.bus import Publication, Published, Publisher
from router.wire.subjects import RESULT_PROBE

EVERY_S = 10.0
WITHIN_S = 5.0

# Pods of version 0.1.0 read it as a result of an unknown task, and acknowledge it.
_BODY = orjson.dumps(
    {
        "version": "1",
        "assignment_id": "00000000-0000-4000-8000-000000000000",
        "request_id": "probe",
        "status": "error",
        "provider_id": "probe",
        "job": {"type": "probe"},
        "latency_ms": 0,
        "cost": 0,
    }
)


class ResultProbe:
    """Publishes at most one probe per `EVERY_S`. Times are monotonic, in seconds.

    `takes_probes`: whether the stream has the probe's subject; `refusing`: whether it is known to store nothing;
    `received`: number of messages that this pod received from it. `pod` makes the message ids unique.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        takes_probes: Callable[[], bool],
        refusing: Callable[[], bool],
        received: Callable[[], int],
        pod: str,
        now_s: Callable[[], float],
    ) -> None:
        self._publisher = publisher
        self._takes_probes = takes_probes
        self._refusing = refusing
        self._received = received
        self._pod = pod
        self._now_s = now_s
        self._missed = False
        self._seen = 0
        self._quiet_since = now_s()
        self._next_at = float("-inf")

    def missed(self) -> None:
        """Report that a result is missing: a deadline has passed, or a worker could not publish."""
        self._missed = True

    def tick(self) -> None:
        """Call once a second."""
        now = self._now_s()
        received = self._received()
        if received != self._seen:
            self._seen, self._quiet_since = received, now
        suspected = self._missed and now - self._quiet_since >= EVERY_S
        if now < self._next_at or not (suspected or self._refusing()) or not self._takes_probes():
            return
        self._next_at = now + EVERY_S
        message_id = f"probe:{self._pod}:{now:.3f}"
        self._publisher.publish(Publication(RESULT_PROBE, _BODY, message_id, within_s=WITHIN_S), self._done)

    def _done(self, outcome: Published) -> None:
        if outcome:
            self._missed = False
