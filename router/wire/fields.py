"""Checks of single fields. Each answers the good value, or None after noting what is wrong.

`None` in means absent and comes back as None without a note: optional fields need no test before the call.
"""

import re
from functools import lru_cache
from ipaddress import ip_address

from router.domain.decision import Intake
from router.domain.json import JsonObject
from router.wire.problems import Problems, named

LONGEST_ID = 256
LONGEST_TRACE_ID = 128
LONGEST_REFERENCE = 2048
MAX_MS = 2**31 - 1
MAX_TOKENS = 10**9
MAX_USD = 1_000_000
MICROUSD = 1_000_000

_SCHEMA = Intake.SCHEMA_VALIDATION_FAILED
# Surrogates come from header bytes that are not UTF-8; they could be neither hashed nor sent.
_clean = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+").fullmatch
_name = re.compile(r"[A-Za-z0-9_.-]{1,255}").fullmatch


def name(found: Problems, path: str, value: object) -> str | None:
    """A tenant_id or policy_id: `^[A-Za-z0-9_.-]{1,255}$`."""
    # The first half is the quick test for the most usual names.
    if type(value) is str and ((value.isalnum() and value.isascii() and len(value) < 256) or _name(value)):
        return value
    if value is not None:
        what = "has other characters or a bad length" if type(value) is str else f"is {named(value)}"
        found.add(path, what, "1 to 255 of the characters A-Z a-z 0-9 _ . -")
    return None


def text(found: Problems, path: str, value: object, longest: int = LONGEST_ID, intake: Intake = _SCHEMA) -> str | None:
    """A non-empty string of at most `longest` characters, none of them a control character."""
    # isprintable is the quick test: what passes it holds no control character and no surrogate.
    if type(value) is str and 0 < len(value) <= longest and (value.isprintable() or _clean(value)):
        return value
    if value is None:
        return None
    hint = f"a string of 1 to {longest} characters without control characters"
    if type(value) is not str:
        found.add(path, f"is {named(value)}", hint, intake)
    elif not value:
        found.add(path, "is empty", hint, intake)
    elif len(value) > longest:
        found.add(path, f"has {len(value)} characters", hint, intake)
    else:
        found.add(path, "holds control characters", hint, intake)
    return None


def loose_text(
    found: Problems, path: str, value: object, longest: int = LONGEST_ID, intake: Intake = _SCHEMA
) -> str | None:
    """A text that may be empty, as encoders write what they do not have: as good as absent, as it is in protobuf."""
    return None if value == "" else text(found, path, value, longest, intake)


def whole(found: Problems, path: str, value: object, minimum: int, maximum: int) -> int | None:
    """A whole number in [least, most]; 5.0 is 5."""
    if type(value) is int and minimum <= value <= maximum:
        return value
    if type(value) is float and value.is_integer():
        return whole(found, path, int(value), minimum, maximum)
    if value is not None:
        what = "is out of range" if type(value) is int else f"is {named(value)}"
        found.add(path, "is not whole" if type(value) is float else what, f"a whole number from {minimum} to {maximum}")
    return None


def microusd(found: Problems, path: str, value: object) -> int | None:
    """An amount in USD (0 to a million), as integer micro-USD."""
    if (type(value) is float or type(value) is int) and 0 <= value <= MAX_USD:
        return int(value * MICROUSD + 0.5)  # Rounds halves up; half the time of round().
    if value is not None:
        what = "is out of range" if type(value) in (int, float) else f"is {named(value)}"
        found.add(path, what, f"an amount in USD from 0 to {MAX_USD}")
    return None


def flag(found: Problems, path: str, value: object) -> bool:
    """A boolean; absent: False."""
    if value is True:
        return True
    if value is not None and value is not False:
        found.add(path, f"is {named(value)}", "true or false")
    return False


def loose_flag(found: Problems, path: str, value: object) -> bool:
    """A boolean or its word, as push_assignment may be; absent: False."""
    if value is True or value == "true":
        return True
    if value is not None and value is not False and value != "false":
        found.add(path, f"is {named(value)}", 'true, false, "true" or "false"')
    return False


def table(found: Problems, path: str, value: object) -> JsonObject | None:
    """An object."""
    if type(value) is dict:
        return value
    if value is not None:
        found.add(path, f"is {named(value)}", "an object")
    return None


def client_ip(found: Problems, path: str, value: object) -> str | None:
    """An IPv4 or IPv6 address in its canonical form."""
    if value is None:
        return None
    address = _canonical_ip(value) if type(value) is str and len(value) <= 64 else None
    if address is None:
        found.add(path, "is not an IP address", "such as 192.0.2.7 or 2001:db8::7")
    return address


@lru_cache(maxsize=4096)
def _canonical_ip(value: str) -> str | None:
    try:
        return str(ip_address(value)) if _clean(value) else None
    except ValueError:
        return None
