"""Implements `ports.extensions.ExtensionCalls` with NATS request/reply."""

from collections.abc import Mapping

from router.bus.client.connection import Bus
from router.bus.client.faults import BusTimeoutError, NoRespondersError
from router.errors import BusError
from router.ports.extensions import CallFailure


class BusExtensions:
    """Calls extensions over NATS; see `ports.extensions.ExtensionCalls`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | CallFailure:
        """See `ports.extensions.ExtensionCalls.call`."""
        if len(body) > self._bus.max_payload:
            return CallFailure.TOO_LARGE
        try:
            reply = await self._bus.request(subject, body, dict(headers) or None, timeout_s=timeout_ms / 1000)
        except NoRespondersError:
            return CallFailure.NO_RESPONDERS
        except BusTimeoutError:
            return CallFailure.TIMEOUT
        except BusError:
            return CallFailure.NOT_SENT
        return reply.data
