"""Alerts: their sink, and the fleet's count of their episodes."""

from typing import Protocol

from router.domain.alert import Alert, Condition
from router.domain.json import JsonObject


class AlertSink(Protocol):
    """Where alerts go (`usecases.alerts.alerts.Alerts`)."""

    def raise_(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """The condition holds."""

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """The condition has ended. `metadata` describes the end; without it, the end carries the metadata of the
        beginning.
        """

    def happened(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """The condition occurred; it has no end of its own."""


class Epochs(Protocol):
    """The fleet's count of episodes, by condition and scope."""

    async def begin(self, condition: str, scope: str) -> int:
        """Join the open episode, or open the next one. Returns its number.

        :raises StoreError: Redis did not answer.
        """

    async def current(self, condition: str, scope: str) -> int | None:
        """The number of the open episode, if there is one.

        :raises StoreError: Redis did not answer.
        """

    async def left(self, quiet_ms: int) -> list[tuple[str, str]]:
        """Condition and scope of open episodes that no pod has joined for `quiet_ms`.

        :raises StoreError: Redis did not answer.
        """

    async def end(self, condition: str, scope: str, epoch: int) -> None:
        """Close that episode. Does nothing if another episode is open meanwhile.

        :raises StoreError: Redis did not answer.
        """


class Encode(Protocol):
    """Encodes an alert as payload and headers (CloudEvents, binary mode)."""

    def __call__(self, alert: Alert) -> tuple[bytes, dict[str, str]]:
        """Encode one alert."""


class OpenEpisodes(Protocol):
    """The scopes of open episodes, across the fleet."""

    async def open_scopes(self, condition: str) -> list[str]:
        """The scopes that have an open episode of this condition.

        :raises StoreError: Redis did not answer.
        """
