"""Rules that turn readings into alerts: a condition must hold for a while before it is an alert."""

from collections import deque

from router.domain.alert import Condition
from router.domain.json import JsonObject
from router.ports.alerts import AlertSink

MAX_READINGS = 30


class Level:
    """A level with hysteresis: raise after `hold` readings in a row ≥ `raise_at`, resolve after `hold` ≤ `clear_at`."""

    def __init__(
        self, alerts: AlertSink, condition: Condition, scope: str, *, raise_at: float, clear_at: float, hold: int = 3
    ) -> None:
        if clear_at > raise_at:
            raise ValueError(f"{condition}: clears at {clear_at}, above {raise_at} where it is raised")
        self._alerts, self._condition, self._scope = alerts, condition, scope
        self._raise_at, self._clear_at, self._hold = raise_at, clear_at, hold
        self._high = self._low = 0

    def read(self, value: float) -> None:
        """Take one reading."""
        self._high = self._high + 1 if value >= self._raise_at else 0
        self._low = self._low + 1 if value <= self._clear_at else 0
        if self._high >= self._hold:
            self._alerts.raise_(self._condition, self._scope, metadata={"value": value, "bound": self._raise_at})
        elif self._low >= self._hold:
            self._alerts.resolve(self._condition, self._scope)


class Unavailable:
    """An unavailable server: raise if it was down in `minimum` of the last 30 readings, resolve at the next good one.

    One short outage is no alert; repeated short outages are one.
    """

    def __init__(self, alerts: AlertSink, condition: Condition, scope: str, *, minimum: int) -> None:
        self._alerts, self._condition, self._scope = alerts, condition, scope
        self._minimum = minimum
        self._readings: deque[bool] = deque(maxlen=MAX_READINGS)

    def read(self, down: bool, metadata: JsonObject | None = None) -> None:
        """Take one reading a second. `down`: the server was unavailable at any moment since the last reading."""
        self._readings.append(down)
        if not down:
            self._alerts.resolve(self._condition, self._scope)
        elif sum(self._readings) >= self._minimum:
            self._alerts.raise_(self._condition, self._scope, metadata=metadata)
