"""Checks of NATS: version, payload bound, streams and consumers as specified, no stream over request subjects."""

import msgspec

from router.bus.client.connection import Bus
from router.bus.streams import api
from router.bus.streams.consumers import REQUEST_SUBJECTS
from router.bus.streams.registry import Streams
from router.errors import BusError
from router.selftest.check import NotSeen

MINIMUM = (2, 9)
MIN_PAYLOAD = 1 << 20


class _Account(msgspec.Struct):
    streams: int = 0
    consumers: int = 0


class NatsChecks:
    """Each method returns what it saw.

    :raises NotSeen: the check failed.
    :raises BusError: NATS did not answer.
    """

    def __init__(self, bus: Bus, streams: Streams) -> None:
        self._bus = bus
        self._streams = streams

    async def version(self) -> str:
        """The server has the JetStream features that the fleet uses, and accepts a request of 1 MiB."""
        version = self._bus.server_version
        if version < MINIMUM:
            raise NotSeen(f"NATS {_text(version)}: at least {_text(MINIMUM)} is needed")
        if self._bus.max_payload < MIN_PAYLOAD:
            raise NotSeen(
                f"max_payload is {self._bus.max_payload} bytes: set 1MB or more (4MB lets oversize be answered)"
            )
        return f"NATS {_text(version)}, max_payload {self._bus.max_payload >> 20} MiB"

    async def streams(self) -> str:
        """Streams and durable consumers are there and as the settings say."""
        try:
            account = await api.call(self._bus, "INFO", None, _Account)
        except BusError as error:
            raise NotSeen(f"JetStream does not answer: {error}") from error
        differences = await self._streams.differences()
        if differences:
            raise NotSeen("; ".join(map(str, differences)))
        names = ", ".join(spec.name for spec in self._streams.specs)
        return f"{names} as specified; {account.streams} streams and {account.consumers} consumers in the account"

    async def request_subjects(self) -> str:
        """No stream covers a request subject: its PubAck would reach the caller before the router's reply."""
        taken = {s: found for s in REQUEST_SUBJECTS if (found := await self._streams.covering(s))}
        if taken:
            raise NotSeen("; ".join(f"stream {', '.join(names)} covers {subject}" for subject, names in taken.items()))
        return "no stream over them"


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
