"""JSON bytes → Python values, and the check that they can be encoded again."""

import orjson

from router.domain.json import JsonValue

MAX_DEPTH = 250


class NotJsonError(ValueError):
    """The bytes are not JSON that the router accepts. The message is a predicate, such as "is empty"."""


def parse(data: bytes) -> JsonValue:
    """Decode JSON. The last of duplicate keys wins, and a whole number beyond 64 bits becomes a float.

    NaN and Infinity are not JSON. The value may be nested deeper than can be encoded: check it with `is_writable`.

    :raises NotJsonError: not JSON, or not UTF-8, or nested more than 1,024 deep.
    """
    try:
        value: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise NotJsonError(_fault(data, e)) from e
    return value


def is_writable(value: JsonValue) -> bool:
    """Whether orjson can encode the value inside a message: it decodes 1,024 levels, but encodes only 254."""
    try:
        orjson.dumps([[[[value]]]])
    except orjson.JSONEncodeError:
        return False
    return True


def _fault(data: bytes, error: orjson.JSONDecodeError) -> str:
    if not data.strip():
        return "is empty"
    try:
        bytes(data).decode()
    except UnicodeDecodeError as e:
        return f"is not UTF-8: invalid byte at offset {e.start}"
    if error.msg.startswith("depth limit"):
        return f"is nested more than {MAX_DEPTH} levels deep"
    return f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
