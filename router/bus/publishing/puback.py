"""The ack of JetStream to a publish."""

from collections.abc import Mapping
from enum import Enum

import msgspec

from router.bus.client.connection import Bus
from router.domain.json import UNREADABLE
from router.errors import BusError
from router.ports.bus import Published


class Verdict(Enum):
    """The meaning of a reply for the published message."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    RETRY = "retry"
    """No leader, busy, or out of space: send the message again."""
    REFUSED = "refused"
    """The stream refuses messages: it is sealed, for example."""
    UNFIT = "unfit"
    """The stream refuses this message only: it is too large."""
    NO_TTL = "no TTL"
    """The stream allows no lifetimes of single messages: send the message again without `Nats-TTL`."""
    FOREIGN = "foreign"
    """Not from JetStream: another subscriber replied. The ack of the stream is still to come."""


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Fault | None = None


_DECODER = msgspec.json.Decoder(_Ack)
_TRANSIENT = (408, 429, 500, 503)
_ACCOUNT_FULL = 10002  # resource limits of the account: code 400, and it ends when something is deleted
_TTL_REFUSED = (10165, 10166)  # not valid; not enabled for the stream
_TOO_LARGE = (10054, 10097)  # the message, or its headers


def read(data: bytes) -> tuple[Verdict, str]:
    """Read the verdict, and the description of a refusal."""
    try:
        ack = _DECODER.decode(data)
    except UNREADABLE:
        return Verdict.FOREIGN, ""
    if ack.error is not None:
        return _refusal(ack.error), ack.error.description
    if not ack.seq:
        return Verdict.FOREIGN, ""
    return (Verdict.DUPLICATE if ack.duplicate else Verdict.STORED), ""


def _refusal(error: _Fault) -> Verdict:
    if error.code in _TRANSIENT or error.err_code == _ACCOUNT_FULL:
        return Verdict.RETRY
    if error.err_code in _TTL_REFUSED:
        return Verdict.NO_TTL
    return Verdict.UNFIT if error.err_code in _TOO_LARGE else Verdict.REFUSED


OUTCOMES = {
    Verdict.STORED: Published.STORED,
    Verdict.DUPLICATE: Published.DUPLICATE,
    Verdict.REFUSED: Published.REFUSED,
    Verdict.UNFIT: Published.REFUSED,
}


async def publish_once(bus: Bus, subject: str, payload: bytes, headers: Mapping[str, str]) -> Published:
    """Publish and wait for the ack. Used by CLI commands; pods use the pipelined `StreamPublisher`.

    :raises BusError: no stream acknowledged in time, or the stream is busy.
    """
    reply = await bus.request(subject, payload, dict(headers), timeout_s=5.0)
    verdict, reason = read(reply.data)
    if verdict not in OUTCOMES:
        raise BusError(f"{subject}: {reason or 'no stream acknowledged'}")
    return OUTCOMES[verdict]
