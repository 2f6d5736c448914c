"""The health of an extension: the tally of one pod, the record of the fleet, and the status that operators read.

Each pod tallies its calls and adds the tally to the fleet's record in Redis. Counts cover the last 5 to 10 minutes in
which the extension was called. All pods share one breaker per extension. It opens after consecutive failures, or on the
error rate over a minute; one successful probe closes it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from router.domain.decide.request import DecideRequest
from router.domain.extensions.pipeline import (
    BREAKER_IS_OPEN,
    CallOutcome,
    ExtensionName,
    ExtensionStep,
    Stage,
    wanted_of,
)
from router.domain.levers import BreakerState
from router.domain.policy.model import Policy

BOUNDS_MS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
BUCKETS: Final = len(BOUNDS_MS) + 1

FAILURES_IN_A_ROW: Final = 5
ERROR_RATE: Final = 0.5
MINIMUM_CALLS: Final = 10
RATE_WINDOW_MS: Final = 60_000
OPEN_MS: Final = 10_000
GENERATION_MS: Final = 300_000

_HEALTHY, _DEGRADED = 0.95, 0.80


class Tally(Struct):
    """The calls of one pod since its last report to the store. Times are Redis ms; 0: never.

    - `in_a_row`: failures since the last success.
    - `took_ms`: duration of all calls together. `buckets`: calls by duration, at the bounds `BOUNDS_MS`.
    - `probe`: 8 random bytes if the pod asks to probe an open breaker, else zeros. A granted probe lasts `probe_ms`.
    """

    name: ExtensionName
    good: int = 0
    bad: int = 0
    in_a_row: int = 0
    took_ms: int = 0
    last_good_ms: int = 0
    last_bad_ms: int = 0
    buckets: list[int] = []
    probe: bytes = bytes(8)
    probe_ms: int = 0

    def saw(self, good: bool, took_ms: int, *, at_ms: int) -> None:
        """Count one call."""
        if not self.buckets:
            self.buckets = [0] * BUCKETS
        if good:
            self.good += 1
            self.in_a_row = 0
            self.last_good_ms = at_ms
        else:
            self.bad += 1
            self.in_a_row += 1
            self.last_bad_ms = at_ms
        self.took_ms += took_ms
        self.buckets[bisect_left(BOUNDS_MS, took_ms)] += 1


class ExtensionRecord(Struct, frozen=True):
    """The fleet's record of an extension. Times are Redis ms; 0: never. Fields as in `Tally`."""

    name: ExtensionName
    state: BreakerState
    opened_at_ms: int
    open_until_ms: int
    in_a_row: int
    good: int
    bad: int
    took_ms: int
    last_good_ms: int
    last_bad_ms: int
    updated_ms: int
    probe: bytes
    probe_until_ms: int
    buckets: Sequence[int]


def is_blocked(record: ExtensionRecord, now_ms: int) -> bool:
    """Whether calls are blocked: the breaker is not closed, and either no probe is due or a pod holds the probe."""
    must_wait = now_ms < record.open_until_ms or now_ms < record.probe_until_ms
    return record.state is not BreakerState.CLOSED and must_wait


def first_blocked(
    policy: Policy, request: DecideRequest, records: Sequence[ExtensionRecord], now_ms: int
) -> ExtensionStep | None:
    """The step of the first extension whose breaker ends this request before any call; None: no breaker does.

    Only extensions whose failure stops a request can end it here.
    """
    blocked = {r.name for r in records if is_blocked(r, now_ms)}
    for stage, extension in wanted_of(policy, request):
        step = ExtensionStep(
            name=ExtensionName(stage, extension.id),
            extension=extension,
            outcome=CallOutcome.UNAVAILABLE,
            calls=0,
            took_ms=0,
            reason=BREAKER_IS_OPEN,
        )
        if step.name in blocked and step.stops:
            return step
    return None


class Settled(Struct, frozen=True):
    """A record after a tally was added, and the new state of its breaker (None: unchanged)."""

    record: ExtensionRecord
    turned: BreakerState | None


class HealthStatus(StrEnum):
    """An extension's health in one word."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


def status(record: ExtensionRecord) -> HealthStatus:
    """The status that follows from the success rate."""
    rate = success_rate(record)
    return (
        HealthStatus.HEALTHY
        if rate >= _HEALTHY
        else HealthStatus.DEGRADED
        if rate >= _DEGRADED
        else HealthStatus.UNHEALTHY
    )


def success_rate(record: ExtensionRecord) -> float:
    """The share of successful calls."""
    return record.good / max(1, record.good + record.bad)


def percentile_ms(record: ExtensionRecord, share: float) -> int:
    """The duration within which this share (0..1) of the calls ended, rounded up to a bucket's bound; 0: no calls.

    Calls above the last bound count as that bound.
    """
    total = sum(record.buckets)
    calls = 0
    for count, bound in zip(record.buckets, (*BOUNDS_MS, BOUNDS_MS[-1]), strict=True):
        calls += count
        if total and calls >= share * total:
            return bound
    return 0


def name_of(text: str) -> ExtensionName:
    """Parse the text form of a name (`ExtensionName.text`).

    :raises ValueError: the text does not begin with a stage.
    """
    stage, _, extension_id = text.partition(".")
    return ExtensionName(Stage(stage), extension_id)
