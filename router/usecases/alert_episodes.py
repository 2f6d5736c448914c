"""Episodes of alerts: where the fleet counts them, and what a pod remembers of its own."""

from typing import Protocol

from msgspec import Struct

from router.domain.alert import Alert, Condition
from router.domain.json import JsonObject


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


class Step(Struct, frozen=True):
    """Something to send: an episode's beginning, or its end."""

    condition: Condition
    scope: str
    message: str
    metadata: JsonObject
    at_ms: int
    resolved: bool


class Begun(Struct, frozen=True):
    """An episode that has its identity. `epoch` None: the wall clock's, nothing to close in the store."""

    alert_id: str
    epoch: int | None


class Held(Struct):
    """An open episode. `ends_ms`: when it ends, unless it is seen again; `over`: what was said of its end, and when."""

    metadata: JsonObject
    ends_ms: int | None = None
    over: tuple[str, int] | None = None
