"""Calls of the JetStream API in JSON; an error in the reply becomes an exception."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from router.bus.client.connection import Bus
from router.bus.client.faults import NoRespondersError
from router.domain.json import UNREADABLE
from router.errors import BusError


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(msgspec.Struct):
    error: _Fault | None = None


STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
CONSUMER_EXISTS = 10148


class JetStreamError(BusError):
    """The server refused a call. `code` is similar to an HTTP status, `err_code` is a JetStream error number."""

    def __init__(self, verb: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{verb}: {description} ({code}, {err_code})")
        self.code, self.err_code, self.description = code, err_code, description


_OFF = (10039, 10076)  # JetStream is not enabled: for the account, on the server


def jetstream_is_off(error: BusError) -> bool:
    """Whether an error means that the server or the account has no JetStream (now)."""
    return isinstance(error, NoRespondersError) or (isinstance(error, JetStreamError) and error.err_code in _OFF)


T = TypeVar("T")


async def call(
    bus: Bus, verb: str, payload: Mapping[str, object] | None, reply: type[T], *, timeout_s: float = 5.0
) -> T:
    """Call `verb` (such as `STREAM.INFO.ASSIGN`) and decode the reply as `reply`.

    :raises JetStreamError: the server refused the call.
    :raises NoRespondersError: JetStream is disabled, or has no leader now.
    :raises BusError: no reply in time, not connected, or an unreadable reply.
    """
    body = b"" if payload is None else msgspec.json.encode(payload)
    message = await bus.request(f"{bus.options.js_prefix}.{verb}", body, timeout_s=timeout_s)
    try:
        fault = msgspec.json.decode(message.data, type=_Reply).error
        if fault is not None:
            raise JetStreamError(verb, fault.code, fault.err_code, fault.description)
        return msgspec.json.decode(message.data, type=reply)
    except UNREADABLE as error:
        raise BusError(f"{verb}: unreadable reply: {error}") from error
