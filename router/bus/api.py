"""The JetStream API as JSON: one call, one answer, its error as an exception."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from router.bus.connection import Bus
from router.errors import BusError


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Fault | None = None


STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
CONSUMER_EXISTS = 10148


class JetStreamError(BusError):
    """The server refused; `code` is like an HTTP status, `err_code` is the server's own number."""

    def __init__(self, verb: str, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{verb}: {description} ({code}, {err_code})")
        self.code, self.err_code, self.description = code, err_code, description


T = TypeVar("T")


async def call(
    bus: Bus, verb: str, payload: Mapping[str, object] | None, answer: type[T], *, timeout_s: float = 5.0
) -> T:
    """Call `verb` (such as `STREAM.INFO.ASSIGN`) and decode the answer as `answer`.

    :raises JetStreamError: the server refused.
    :raises NoRespondersError: JetStream is not enabled, or has no leader now.
    :raises BusError: no answer in time, not connected, or an answer in another form.
    """
    body = b"" if payload is None else msgspec.json.encode(payload)
    message = await bus.request(f"{bus.options.js_prefix}.{verb}", body, timeout_s=timeout_s)
    try:
        fault = msgspec.json.decode(message.data, type=_Answer).error
        if fault is not None:
            raise JetStreamError(verb, fault.code, fault.err_code, fault.description)
        return msgspec.json.decode(message.data, type=answer)
    except msgspec.DecodeError as error:
        raise BusError(f"{verb}: an answer in another form: {error}") from error
