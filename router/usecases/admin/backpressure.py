"""The backpressure status: whether callers should slow down, from what a pod measures."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from router.ports.bus import Reply
from router.wire.backpressure import Load, Pressure, Thresholds, encode_backpressure, pressure


class RecentLatency:
    """The 95th percentile of the last `window_s` seconds, from the counts of a histogram.

    `without`: counts of values that do not count, by the same bounds.
    """

    def __init__(
        self, counts: Sequence[int], bounds_ms: Sequence[float], *, without: Sequence[int] = (), window_s: int = 10
    ) -> None:
        self._counts = counts
        self._without = without
        self._bounds_ms = bounds_ms
        self._history: deque[list[int]] = deque([self._current()], maxlen=window_s)

    def _current(self) -> list[int]:
        if not self._without:
            return list(self._counts)
        return [count - left_out for count, left_out in zip(self._counts, self._without, strict=True)]

    def tick(self) -> None:
        """Call once a second."""
        self._history.append(self._current())

    def p95_ms(self) -> float:
        """The upper bound of the bucket that holds the 95th percentile, in ms; 0 without recent values."""
        # `without` may count a value one bucket higher, because it measures the value a moment later.
        recent = [max(0, now - then) for now, then in zip(self._current(), self._history[0], strict=True)]
        total = sum(recent)
        cumulative = 0
        for count, bound in zip(recent, [*self._bounds_ms, self._bounds_ms[-1] * 2], strict=True):
            cumulative += count
            if total and cumulative >= 0.95 * total:
                return bound
        return 0.0


class Backpressure:
    """Serves `beamline.router.v1.status.backpressure`, and the first line of /metrics.

    It follows admission: requests in flight compared with `SHARE` of `max_in_flight`, refusals for overload in the last
    `SHED_S`, and the backlog. `latency` is that of requests without extensions, because a tenant's slow extension is
    not load. `shed_for_s`: the time since the last refusal for overload, in s.
    """

    SHARE = 0.9
    SHED_S = 5.0

    def __init__(
        self,
        lag: Callable[[], int | None],
        latency: RecentLatency,
        in_flight: Callable[[], int],
        wall_ms: Callable[[], int],
        *,
        shed_for_s: Callable[[], float],
        max_in_flight: int,
        retry_after_s: int = 1,
        max_retry_attempts: int = 3,
    ) -> None:
        self._lag = lag
        self._latency = latency
        self._in_flight = in_flight
        self._wall_ms = wall_ms
        self._shed_for_s = shed_for_s
        self._thresholds = Thresholds(inflight_overload=max(1, int(self.SHARE * max_in_flight)))
        self._retry_after_s = retry_after_s
        self._max_retry_attempts = max_retry_attempts

    def _load(self) -> Load:
        shed = self._shed_for_s() < self.SHED_S
        return Load(self._lag(), self._latency.p95_ms(), self._in_flight(), shed)

    def active(self) -> bool:
        """Whether callers should slow down."""
        return pressure(self._load(), self._thresholds) is Pressure.ACTIVE

    async def __call__(self, _data: bytes, _headers: Mapping[str, str], _subject: str) -> Reply:
        """Return the current status."""
        body = encode_backpressure(
            self._load(),
            self._thresholds,
            retry_after_s=self._retry_after_s,
            max_retry_attempts=self._max_retry_attempts,
            timestamp_ms=self._wall_ms(),
        )
        return body, {}
