"""Checks of single fields. Each returns the checked value, or None after it added a problem.

The value None means absent. It gives None without a problem, so optional fields need no test before the call.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from router.domain.decide.decision import Intake
from router.domain.defects import Defect
from router.domain.json import JsonObject
from router.wire.problems import Problems, named

MAX_ID_CHARS = 256
MAX_TRACE_ID_CHARS = 128
MAX_REFERENCE_CHARS = 2048
MAX_MS = 2**31 - 1
MAX_TOKENS = 10**9
MAX_USD = 1_000_000
MICROUSD = 1_000_000

_WORDS_FOR_TRUE = ("true", "1", 1)
_WORDS_FOR_FALSE = ("false", "0", 0)
_SCHEMA = Intake.SCHEMA_VALIDATION_FAILED
# Header bytes that are not UTF-8 become surrogates, which can be neither hashed nor sent.
_clean = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+").fullmatch
_name = re.compile(r"[A-Za-z0-9_.-]{1,255}").fullmatch


def is_identifier(value: str) -> bool:
    """Whether a text may be a tenant_id or policy_id: `^[A-Za-z0-9_.-]{1,255}$`."""
    # The first half is a fast test that the most usual names pass.
    return (value.isalnum() and value.isascii() and len(value) < 256) or _name(value) is not None


def identifier(problems: Problems, path: str, value: object) -> str | None:
    """Check a tenant_id or policy_id; see `is_identifier`."""
    if type(value) is str and is_identifier(value):
        return value
    if value is not None:
        message = "has characters or a length that are not allowed" if type(value) is str else f"is {named(value)}"
        problems.add(path, message=message, hint="send 1 to 255 of the characters A-Z a-z 0-9 _ . -")
    return None


def text(
    problems: Problems, path: str, value: object, max_chars: int = MAX_ID_CHARS, intake: Intake = _SCHEMA
) -> str | None:
    """Check a non-empty string of at most `max_chars` characters, without control characters."""
    # isprintable is a fast test: it fails for every control character and surrogate.
    if type(value) is str and 0 < len(value) <= max_chars and (value.isprintable() or _clean(value)):
        return value
    if value is None:
        return None
    hint = f"send a string of 1 to {max_chars:,} characters without control characters"
    if type(value) is not str:
        problems.add(path, message=f"is {named(value)}", hint=hint, intake=intake)
    elif not value:
        problems.add(path, message="is empty", hint=hint, intake=intake)
    elif len(value) > max_chars:
        problems.add(path, message=f"has {len(value):,} characters", hint=hint, intake=intake)
    else:
        problems.add(path, message="has control characters", hint=hint, intake=intake)
    return None


def text_unless_empty(
    problems: Problems, path: str, value: object, max_chars: int = MAX_ID_CHARS, intake: Intake = _SCHEMA
) -> str | None:
    """Check a string; an empty one counts as absent, as in protobuf: encoders write it for fields without a value."""
    return None if value == "" else text(problems, path, value, max_chars, intake)


def whole_number(problems: Problems, path: str, value: object, *, minimum: int, maximum: int) -> int | None:
    """Check a whole number from `minimum` to `maximum`; 5.0 is 5."""
    if type(value) is int and minimum <= value <= maximum:
        return value
    if type(value) is float and value.is_integer():
        return whole_number(problems, path, int(value), minimum=minimum, maximum=maximum)
    if value is not None:
        if type(value) is float:
            message = "is not a whole number"
        else:
            message = "is out of range" if type(value) is int else f"is {named(value)}"
        problems.add(path, message=message, hint=f"send a whole number from {minimum:,} to {maximum:,}")
    return None


def microusd(problems: Problems, path: str, value: object) -> int | None:
    """Check an amount of 0 to 1,000,000 USD and convert it to integer micro-USD."""
    if (type(value) is float or type(value) is int) and 0 <= value <= MAX_USD:
        return int(value * MICROUSD + 0.5)  # Rounds halves up; half the time of round().
    if value is not None:
        message = "is out of range" if type(value) in (int, float) else f"is {named(value)}"
        problems.add(path, message=message, hint=f"send an amount in USD from 0 to {MAX_USD:,}")
    return None


def boolean(problems: Problems, path: str, value: object) -> bool:
    """Check a boolean; absent: False."""
    if value is True:
        return True
    if value is not None and value is not False:
        problems.add(path, message=f"is {named(value)}", hint="send true or false")
    return False


def boolean_or_word(problems: Problems, path: str, value: object) -> bool:
    """Check a boolean that may also be 1, 0, "true" or "false" in any case, as in push_assignment; absent: False."""
    if value is None or value is False:
        return False
    if value is True or value == "true":
        return True
    word = value.lower() if type(value) is str else value
    if word in _WORDS_FOR_TRUE:
        return True
    if word not in _WORDS_FOR_FALSE:
        problems.add(
            path,
            message="is not true or false" if type(value) is str else f"is {named(value)}",
            hint="send true or false",
        )
    return False


def json_object(problems: Problems, path: str, value: object) -> JsonObject | None:
    """Check an object."""
    if type(value) is dict:
        return value
    if value is not None:
        problems.add(path, message=f"is {named(value)}", hint="send an object")
    return None


def client_ip(problems: Problems, path: str, value: object) -> str | None:
    """Return the canonical form of an IP address, IPv4 for an IPv4-mapped one; drop anything else, with a warning."""
    address = _canonical_ip(value) if type(value) is str and len(value) <= 64 else None
    if address is None:
        defect = Defect.HEADER_DROPPED if path.startswith("header ") else Defect.FIELD_DROPPED
        problems.warn(defect, path, text="is not an IP address: dropped")
    return address


@lru_cache(maxsize=4096)
def _canonical_ip(value: str) -> str | None:
    try:
        address = ip_address(value) if _clean(value) else None
    except ValueError:
        return None
    # Sockets that take both families write IPv4 clients so; they are the same clients.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return None if address is None else str(mapped or address)
