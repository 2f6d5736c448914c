"""Alerts: where they go, how they are encoded, and the fleet-wide record of their episodes.

An episode lasts from the moment a condition begins until it ends. All pods that see the same condition and scope share
one episode, so operators get one alert and one resolving message for the whole fleet. The record is in Redis and
survives the pod that opened the episode.
"""

from typing import Protocol

from router.domain.alert import Alert, Condition
from router.domain.json import JsonObject


class AlertSink(Protocol):
    """Receives the conditions that this pod observes (`usecases.alerts.alerts.Alerts`)."""

    def raise_(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """Report that the condition holds."""

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        """Report that the condition has ended.

        `metadata` describes the end. Without it, the resolving message repeats the metadata of the alert.
        """

    def occurred(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        """Report a condition that is an event: it occurred, and no end of it will be reported."""


class Epochs(Protocol):
    """The fleet's numbered episodes, by condition and scope."""

    async def begin(self, condition: str, scope: str) -> int:
        """Join the open episode, or open the next one. Returns the episode's number.

        :raises StoreError: Redis did not answer.
        """

    async def current(self, condition: str, scope: str) -> int | None:
        """Return the number of the open episode; None if no episode is open.

        :raises StoreError: Redis did not answer.
        """

    async def stale(self, quiet_ms: int) -> list[tuple[str, str]]:
        """Return condition and scope of each open episode that no pod has joined for `quiet_ms`.

        :raises StoreError: Redis did not answer.
        """

    async def end(self, condition: str, scope: str, epoch: int) -> None:
        """Close the episode with this number. Does nothing if a different episode is open by now.

        :raises StoreError: Redis did not answer.
        """


class Encode(Protocol):
    """Encodes an alert as payload and headers (CloudEvents, binary mode)."""

    def __call__(self, alert: Alert) -> tuple[bytes, dict[str, str]]:
        """Encode one alert."""


class OpenEpisodes(Protocol):
    """Lists open episodes across the fleet."""

    async def open_scopes(self, condition: str) -> list[str]:
        """Return the scopes that have an open episode of this condition.

        :raises StoreError: Redis did not answer.
        """
