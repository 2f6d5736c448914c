"""Wrong admin tokens and API keys: counted, one log line a minute, and an alert when somebody seems to guess them."""

import logging
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from router.domain.alert import FLEET, Condition
from router.ports.alerts import AlertSink
from router.telemetry import Event

GUESSES = 100
WINDOW_S = 60.0

log = logging.getLogger("router.admin")


class SecretKind(Struct, frozen=True):
    """A kind of secret: the condition of its alert, the event of its log line, and what the line says (`%d`)."""

    condition: Condition
    event: Event
    text: str


ADMIN_TOKEN = SecretKind(
    Condition.ADMIN_TOKENS_GUESSED, Event.ADMIN_WRONG_TOKEN, "admin requests refused: %d wrong tokens"
)
API_KEY = SecretKind(Condition.API_KEYS_GUESSED, Event.API_WRONG_KEY, "HTTP requests refused: %d wrong API keys")


class WrongSecrets:
    """Reports wrong secrets of one kind. Alerts when this pod sees `GUESSES` of them within `WINDOW_S`.

    `count` counts one. `clock`: monotonic, in s.
    """

    def __init__(
        self, kind: SecretKind, alerts: AlertSink, *, count: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._kind = kind
        self._count = count
        self._alerts = alerts
        self._clock = clock
        self._times: deque[float] = deque(maxlen=GUESSES)
        self._unlogged = 0
        self._logged_at = float("-inf")

    def seen(self) -> None:
        """Report one wrong secret. Never raises."""
        now = self._clock()
        self._count()
        self._times.append(now)
        if len(self._times) == GUESSES and now - self._times[0] <= WINDOW_S:
            self._alerts.occurred(self._kind.condition, FLEET)
        self._unlogged += 1
        self.tick()

    def tick(self) -> None:
        """Log what was not logged yet, if the last line is a minute old. Call once a second."""
        if self._unlogged and self._clock() - self._logged_at >= WINDOW_S:
            log.warning(self._kind.text, self._unlogged, extra={"event": self._kind.event, "count": self._unlogged})
            self._unlogged, self._logged_at = 0, self._clock()
