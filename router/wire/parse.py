"""JSON bytes → Python values that can be written again."""

import orjson

from router.domain.json import JsonValue

MAX_DEPTH = 250


class NotJsonError(ValueError):
    """The bytes are not JSON that we take; the message says why, without repeating them."""


def parse(data: bytes) -> JsonValue:
    """The value. Duplicate keys: the last one wins. NaN and Infinity are not JSON; a number beyond 64 bits is a float.

    It may be nested deeper than can be written (`is_writable`).

    :raises NotJsonError: not JSON, or not UTF-8, or nested more than 1,024 deep.
    """
    try:
        value: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise NotJsonError(_why(data, e)) from e
    return value


def is_writable(value: JsonValue) -> bool:
    """Whether orjson can write it as a part of our messages: it reads 1,024 levels, but writes only 254."""
    try:
        orjson.dumps([[[[value]]]])
    except orjson.JSONEncodeError:
        return False
    return True


def _why(data: bytes, error: orjson.JSONDecodeError) -> str:
    if not data.strip():
        return "is empty"
    try:
        bytes(data).decode()
    except UnicodeDecodeError as e:
        return f"is not UTF-8: a bad byte at offset {e.start}"
    if error.msg.startswith("depth limit"):
        return f"is nested more than {MAX_DEPTH} deep"
    return f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
