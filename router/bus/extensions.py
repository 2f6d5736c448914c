"""Implements `ports.extensions.ExtensionCalls` with NATS request/reply."""

from collections.abc import Mapping

from router.bus.connection import Bus
from router.bus.faults import BusTimeoutError, NoRespondersError
from router.errors import BusError
from router.ports.extensions import Missed


class BusExtensions:
    """Calls extensions over NATS; see `ports.extensions.ExtensionCalls`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | Missed:
        """See `ports.extensions.ExtensionCalls.call`."""
        if len(body) > self._bus.max_payload:
            return Missed.TOO_LARGE
        try:
            reply = await self._bus.request(subject, body, dict(headers) or None, timeout_s=timeout_ms / 1000)
        except NoRespondersError:
            return Missed.NO_RESPONDERS
        except BusTimeoutError:
            return Missed.TIMEOUT
        except BusError:
            return Missed.NOT_SENT
        return reply.data
