"""Wrong admin tokens: counted, one log line a minute with their number, and an alert when tokens seem to be guessed."""

import logging
from collections import deque
from collections.abc import Callable

from router.domain.alert import FLEET, Condition
from router.ports.alerts import AlertSink
from router.telemetry import Event, Telemetry

GUESSES = 100
WINDOW_S = 60.0

log = logging.getLogger("router.admin")


class WrongTokens:
    """Reports wrong tokens. Alerts when this pod sees `GUESSES` of them within `WINDOW_S`. `clock`: monotonic, in s."""

    def __init__(self, telemetry: Telemetry, alerts: AlertSink, clock: Callable[[], float]) -> None:
        self._total = telemetry.admin_wrong_tokens
        self._alerts = alerts
        self._clock = clock
        self._times: deque[float] = deque(maxlen=GUESSES)
        self._unlogged = 0
        self._logged_at = float("-inf")

    def seen(self) -> None:
        """Report one wrong token. Never raises."""
        now = self._clock()
        self._total.inc()
        self._times.append(now)
        if len(self._times) == GUESSES and now - self._times[0] <= WINDOW_S:
            self._alerts.occurred(Condition.ADMIN_TOKENS_GUESSED, FLEET)
        self._unlogged += 1
        self.tick()

    def tick(self) -> None:
        """Log what was not logged yet, if the last line is a minute old. Call once a second."""
        if self._unlogged and self._clock() - self._logged_at >= WINDOW_S:
            log.warning(
                "admin requests refused: %d wrong tokens",
                self._unlogged,
                extra={"event": Event.ADMIN_WRONG_TOKEN, "count": self._unlogged},
            )
            self._unlogged, self._logged_at = 0, self._clock()
