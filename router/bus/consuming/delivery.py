"""A message of a durable consumer, and its four acknowledgements: ack, nak, term, in progress."""

import contextlib
from collections.abc import Mapping

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.errors import BusError


class Delivery:
    """One delivery of a message. Only the first of ack, nak and term is sent.

    These methods never raise. When one cannot be sent, the server delivers the message again after its ack wait.
    """

    __slots__ = (
        "_bus",
        "_raw",
        "_reply",
        "data",
        "delivered",
        "pending",
        "sequence",
        "settled",
        "stored_ms",
        "subject",
    )

    def __init__(self, bus: Bus, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        """:raises ValueError: `reply` is not the ack subject of a delivery."""
        parts = reply.split(b".")
        first = 4 if len(parts) == 9 else 6  # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.…
        if len(parts) < 9 or len(parts) == 10 or parts[1] != b"ACK":
            raise ValueError(f"not an ack subject: {reply!r}")
        self.delivered = int(parts[first])
        """The number of deliveries of the message so far; 1 is the first."""
        self.sequence = int(parts[first + 1])
        """The sequence of the message in the stream."""
        self.stored_ms = int(parts[first + 3]) // 1_000_000
        """When the stream stored the message, by the clock of the server (Unix ms)."""
        self.pending = int(parts[first + 4])
        """The number of messages that the consumer has not delivered yet."""
        self.data = data
        self.subject = subject.decode()
        self.settled = False
        self._bus, self._raw, self._reply = bus, raw, reply

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, decoded at each call."""
        return wire.decode(self._raw) if self._raw is not None else {}

    def ack(self) -> None:
        """Acknowledge: the message is done."""
        self._settle(b"+ACK")

    def nak(self, delay_s: float = 0.0) -> None:
        """Ask for another delivery after the delay."""
        self._settle(b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK")

    def term(self) -> None:
        """Give up the message: no further delivery."""
        self._settle(b"+TERM")

    def in_progress(self) -> None:
        """Restart the ack wait."""
        if not self.settled:
            self._send(b"+WPI")

    def _settle(self, command: bytes) -> None:
        if not self.settled:
            self.settled = True
            self._send(command)

    def _send(self, command: bytes) -> None:
        with contextlib.suppress(BusError):  # the server delivers the message again
            self._bus.send(wire.publish(self._reply, reply=b"", block=b"", payload=command))
