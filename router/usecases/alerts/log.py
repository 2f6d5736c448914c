"""Alerts as people read them: begin and end of an episode on one line."""

from msgspec import Struct
from msgspec.structs import replace

from router.ports.bus import History
from router.wire.alerts import ReceivedAlert, decode_alert


class Episode(Struct, frozen=True):
    """One alert. `resolved_at` None: it is still open. Times are RFC 3339."""

    alert_id: str
    severity: str
    condition: str
    scope: str
    message: str
    raised_at: str | None
    resolved_at: str | None


class AlertLog:
    """Folds messages into episodes. Duplicates (same id) are merged; an end without its begin stands alone."""

    def __init__(self) -> None:
        self._episodes: dict[str, Episode] = {}

    def add(self, data: bytes) -> Episode | None:
        """Add one message and return its episode, or None if the message is no alert."""
        alert = decode_alert(data)
        if alert is None:
            return None
        before = self._episodes.get(alert.alert_id)
        if alert.metadata.get("resolved") is True:
            episode = before or _episode(alert, raised_at=None)
            updated = replace(episode, resolved_at=alert.timestamp)
        elif before is None:
            updated = _episode(alert, raised_at=alert.timestamp)
        else:
            updated = replace(before, raised_at=before.raised_at or alert.timestamp, severity=alert.severity)
        self._episodes[alert.alert_id] = updated
        return updated

    @property
    def episodes(self) -> list[Episode]:
        """All episodes, in the order of their first messages."""
        return list(self._episodes.values())


def _episode(alert: ReceivedAlert, raised_at: str | None) -> Episode:
    condition, scope = str(alert.metadata.get("condition", alert.component)), str(alert.metadata.get("scope", ""))
    return Episode(
        alert_id=alert.alert_id,
        severity=alert.severity,
        condition=condition,
        scope=scope,
        message=alert.message,
        raised_at=raised_at,
        resolved_at=None,
    )


async def alert_log(alerts: History, since_ms: int | None) -> AlertLog:
    """Read all alerts in the stream, or those since `since_ms` (Unix ms).

    :raises BusError: the stream could not be read.
    """
    episodes = AlertLog()
    async for batch in alerts.read(since_ms=since_ms):
        for message in batch:
            episodes.add(message.data)
    return episodes
