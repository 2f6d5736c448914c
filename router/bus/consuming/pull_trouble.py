"""Why a pull loop gets no messages, or cannot acknowledge them: NATS does not permit it.

A refusal to pull ends with the next message or heartbeat. A refused acknowledgement is tried again as "in progress",
which a consumer ignores for a message that no client holds.
"""

import time

from router.bus.client import headers as wire
from router.bus.client.connection import Bus
from router.bus.client.permissions import Refusal
from router.bus.streams.specs import ConsumerSpec

_ACK = "$JS.ACK."


class PullTrouble:
    """The refusals of one consumer, between `start` and `stop`."""

    def __init__(self, bus: Bus, spec: ConsumerSpec, next_subject: str) -> None:
        self._bus = bus
        self._next_subject = next_subject
        self._consumer = [spec.stream, spec.name]
        self._pull: Refusal | None = None
        self._acks: Refusal | None = None
        self._refused_ack = ""

    def start(self) -> None:
        """Start to listen for refused publishes."""
        self._bus.on_publish_refused.append(self._refused)

    def stop(self) -> None:
        """Stop listening."""
        self._bus.on_publish_refused.remove(self._refused)

    @property
    def deaf(self) -> Refusal | None:
        """Why no messages arrive; None: pulling is permitted, as far as is known."""
        return self._bus.inbox_refused or self._pull

    @property
    def mute(self) -> Refusal | None:
        """Why messages cannot be acknowledged, so that the server delivers them again; None: acks are permitted."""
        return self._acks

    def heard(self) -> None:
        """The server has answered a pull request."""
        self._pull = None

    def _refused(self, refusal: Refusal) -> None:
        if refusal.subject == self._next_subject:
            self._pull = refusal
        elif refusal.subject.startswith(_ACK):
            tokens = refusal.subject.split(".")
            first = 2 if len(tokens) == 9 else 4  # behind a leaf node: domain and account before the stream
            if tokens[first : first + 2] == self._consumer:
                self._refused_ack = refusal.subject
                self._acks = Refusal("publish", ".".join([*tokens[: first + 2], ">"]))

    async def try_ack(self) -> None:
        """Find out whether acknowledgements are permitted again, if they were not.

        :raises BusError: the server did not answer.
        """
        if self._acks is None:
            return
        subject, began = self._refused_ack, time.monotonic()
        self._bus.send(wire.publish(wire.subject(subject), reply=b"", block=b"", payload=b"+WPI"))
        await self._bus.flush()
        if self._bus.publish_refused(subject, began) is None:
            self._acks = None
