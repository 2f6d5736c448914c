"""One message of a durable consumer, and the four things that can be said about it."""

import contextlib
from collections.abc import Mapping

from router.bus import headers as wire
from router.bus.connection import Bus
from router.errors import BusError


class Delivery:
    """A message as it was delivered this time. What is said about it first counts; a second time nothing is sent.

    Nothing here raises: what cannot be sent is lost, and then the server delivers the message again after its ack wait.
    """

    __slots__ = ("_bus", "_raw", "_reply", "data", "delivered", "pending", "sequence", "settled", "subject")

    def __init__(self, bus: Bus, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        """:raises ValueError: `reply` is not the ack subject of a delivery."""
        parts = reply.split(b".")
        first = 4 if len(parts) == 9 else 6  # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.…
        if len(parts) < 9 or len(parts) == 10 or parts[1] != b"ACK":
            raise ValueError(f"not an ack subject: {reply!r}")
        self.delivered = int(parts[first])
        """How often it was given out, this time included: 1 is the first."""
        self.sequence = int(parts[first + 1])
        """Its place in the stream."""
        self.pending = int(parts[first + 4])
        """What the consumer had not been given yet."""
        self.data = data
        self.subject = subject.decode()
        self.settled = False
        self._bus, self._raw, self._reply = bus, raw, reply

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers; decoded at each call."""
        return wire.decode(self._raw) if self._raw is not None else {}

    def ack(self) -> None:
        """Done: never again."""
        self._settle(b"+ACK")

    def nak(self, delay_s: float = 0.0) -> None:
        """Not done: again, after the delay."""
        self._settle(b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK")

    def term(self) -> None:
        """Cannot be done: never again."""
        self._settle(b"+TERM")

    def in_progress(self) -> None:
        """Still at it: the ack wait begins anew."""
        if not self.settled:
            self._say(b"+WPI")

    def _settle(self, word: bytes) -> None:
        if not self.settled:
            self.settled = True
            self._say(word)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(BusError):  # counted by the bus; the message comes again
            self._bus.send(wire.publish(self._reply, b"", b"", word))
