"""From readings to alerts: what must hold for a while before it is one."""

from collections import deque

from router.domain.alert import Condition
from router.domain.json import JsonObject
from router.ports.alerts import AlertSink

AWAY_READINGS = 30


class Level:
    """A number with hysteresis: raised after `hold` readings in a row ≥ `raise_at`, over after `hold` ≤ `clear_at`."""

    def __init__(
        self, alerts: AlertSink, condition: Condition, scope: str, *, raise_at: float, clear_at: float, hold: int = 3
    ) -> None:
        if clear_at > raise_at:
            raise ValueError(f"{condition}: clears at {clear_at}, above {raise_at} where it is raised")
        self._alerts, self._condition, self._scope = alerts, condition, scope
        self._raise_at, self._clear_at, self._hold = raise_at, clear_at, hold
        self._high = self._low = 0

    def read(self, value: float) -> None:
        """One reading."""
        self._high = self._high + 1 if value >= self._raise_at else 0
        self._low = self._low + 1 if value <= self._clear_at else 0
        if self._high >= self._hold:
            self._alerts.raise_(self._condition, self._scope, metadata={"value": value, "bound": self._raise_at})
        elif self._low >= self._hold:
            self._alerts.resolve(self._condition, self._scope)


class Unavailable:
    """A server that is away: raised when it was so at `minimum` of the last 30 readings, and over when it is there.

    A short cut is no alert; cuts that come again and again are one.
    """

    def __init__(self, alerts: AlertSink, condition: Condition, scope: str, *, minimum: int) -> None:
        self._alerts, self._condition, self._scope = alerts, condition, scope
        self._minimum = minimum
        self._readings: deque[bool] = deque(maxlen=AWAY_READINGS)

    def read(self, away: bool, metadata: JsonObject | None = None) -> None:
        """One reading, once a second: whether it was away at any moment since the last."""
        self._readings.append(away)
        if not away:
            self._alerts.resolve(self._condition, self._scope)
        elif sum(self._readings) >= self._minimum:
            self._alerts.raise_(self._condition, self._scope, metadata=metadata)
