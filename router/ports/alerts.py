"""Alerts: where they go, and the fleet's count of their episodes."""

from typing import Protocol

from router.domain.alert import Alert, Condition
from router.domain.json import JsonObject


class AlertSink(Protocol):
    """Where the gate's alerts go (`usecases.alerts.alerts.Alerts`)."""

    def raise_(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """The condition holds."""

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """It is over. `metadata` names what turns in the store; else the end tells what the beginning told."""

    def happened(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """It happened, and has no end of its own."""


class Epochs(Protocol):
    """The fleet's count of episodes, by condition and scope."""

    async def begin(self, condition: str, scope: str) -> int:
        """Join the episode that is open, else open the next one; returns its number.

        :raises StoreError: Redis did not answer.
        """

    async def current(self, condition: str, scope: str) -> int | None:
        """The number of the episode that is open, if one is.

        :raises StoreError: Redis did not answer.
        """

    async def left(self, quiet_ms: int) -> list[tuple[str, str]]:
        """Condition and scope of the open episodes that nobody has joined for so long.

        :raises StoreError: Redis did not answer.
        """

    async def end(self, condition: str, scope: str, epoch: int) -> None:
        """Close that episode; nothing happens when another one is open by now.

        :raises StoreError: Redis did not answer.
        """


class Encode(Protocol):
    """Alert → payload and headers (CloudEvents, binary mode)."""

    def __call__(self, alert: Alert) -> tuple[bytes, dict[str, str]]:
        """Encode one alert."""


class OpenEpisodes(Protocol):
    """The fleet's episodes (`usecases.alerts.episodes.Epochs`)."""

    async def open_scopes(self, condition: str) -> list[str]:
        """The scopes that have an open episode of this condition.

        :raises StoreError: Redis did not answer.
        """
