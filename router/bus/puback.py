"""What JetStream answers to a publish."""

from collections.abc import Mapping
from enum import Enum

import msgspec

from router.bus.connection import Bus
from router.errors import BusError
from router.ports.bus import Published


class Verdict(Enum):
    """What an answer means for the message."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    AGAIN = "again"
    """No leader, busy, out of room: send it again."""
    REFUSED = "refused"
    FOREIGN = "foreign"
    """Not from JetStream: somebody answers work items. The stream's own answer is still to come."""


class _Fault(msgspec.Struct):
    code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Fault | None = None


_DECODER = msgspec.json.Decoder(_Ack)
_TRANSIENT = (408, 429, 500, 503)


def read(data: bytes) -> tuple[Verdict, str]:
    """The verdict, and the server's words when it refused."""
    try:
        ack = _DECODER.decode(data)
    except msgspec.DecodeError:
        return Verdict.FOREIGN, ""
    if ack.error is not None:
        return (Verdict.AGAIN if ack.error.code in _TRANSIENT else Verdict.REFUSED), ack.error.description
    if not ack.seq:
        return Verdict.FOREIGN, ""
    return (Verdict.DUPLICATE if ack.duplicate else Verdict.STORED), ""


OUTCOMES = {
    Verdict.STORED: Published.STORED,
    Verdict.DUPLICATE: Published.DUPLICATE,
    Verdict.REFUSED: Published.FAILED,
}


async def publish_once(bus: Bus, subject: str, payload: bytes, headers: Mapping[str, str]) -> Published:
    """One publish that waits for its ack; for commands. Pods use the pipelined `StreamPublisher`.

    :raises BusError: no stream answered in time, or it is busy.
    """
    answer = await bus.request(subject, payload, dict(headers), timeout_s=5.0)
    verdict, why = read(answer.data)
    if verdict not in OUTCOMES:
        raise BusError(f"{subject}: {why or 'no stream answered'}")
    return OUTCOMES[verdict]
