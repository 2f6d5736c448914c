"""Alerts as people read them: beginning and end of an episode are one line."""

from msgspec import Struct
from msgspec.structs import replace

from router.ports.bus import History
from router.wire.alerts import ReceivedAlert, decode_alert


class Episode(Struct, frozen=True):
    """One alert; `resolved_at` None: it holds still. Times are RFC 3339."""

    alert_id: str
    severity: str
    condition: str
    scope: str
    message: str
    raised_at: str | None
    resolved_at: str | None


class AlertLog:
    """Folds messages into episodes. Copies (same id) are one; an end whose beginning is not held stands alone."""

    def __init__(self) -> None:
        self._episodes: dict[str, Episode] = {}

    def add(self, data: bytes) -> Episode | None:
        """One message; the episode as it is after it, None when it is no alert."""
        told = decode_alert(data)
        if told is None:
            return None
        before = self._episodes.get(told.alert_id)
        if told.metadata.get("resolved") is True:
            begun = before or _episode(told, raised_at=None)
            now = replace(begun, resolved_at=told.timestamp)
        elif before is None:
            now = _episode(told, raised_at=told.timestamp)
        else:
            now = replace(before, raised_at=before.raised_at or told.timestamp, severity=told.severity)
        self._episodes[told.alert_id] = now
        return now

    @property
    def episodes(self) -> list[Episode]:
        """All of them, in the order in which they were first told."""
        return list(self._episodes.values())


def _episode(told: ReceivedAlert, raised_at: str | None) -> Episode:
    condition, scope = str(told.metadata.get("condition", told.component)), str(told.metadata.get("scope", ""))
    return Episode(told.alert_id, told.severity, condition, scope, told.message, raised_at, None)


async def alert_log(alerts: History, since_ms: int | None) -> AlertLog:
    """What the stream holds.

    :raises BusError: it could not be read.
    """
    log = AlertLog()
    async for batch in alerts.read(since_ms=since_ms):
        for kept in batch:
            log.add(kept.data)
    return log
