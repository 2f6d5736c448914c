"""Extensions: calls, and what the fleet knows of their health."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from router.domain.extension_health import ExtensionRecord, Settled, Tally


class Missed(Enum):
    """Why a call of an extension brought no answer."""

    TIMEOUT = "timeout"
    NOBODY = "nobody listens"
    NOT_SENT = "NATS is away"
    TOO_LARGE = "the call is larger than the server takes"


class ExtensionCalls(Protocol):
    """Calls extensions."""

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | Missed:
        """One request, its first answer; `NOBODY` is known at once. Never raises but when cancelled."""


class ExtensionStore(Protocol):
    """How the fleet's extensions do, shared by all pods."""

    async def settle(self, tallies: Sequence[Tally]) -> list[Settled]:
        """Add what was seen to the shared records, each once, and read them; in order.

        A record's breaker turns by what all pods saw. A tally that asks to probe holds the probe afterwards if the
        record names its `probe`.

        :raises StoreError: Redis did not answer; what was seen may have been added.
        """

    async def records(self) -> list[ExtensionRecord]:
        """Every extension that was called within a day, by name.

        :raises StoreError: Redis did not answer.
        """
