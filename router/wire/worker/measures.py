"""The measurements of a result: latency, cost and tokens. An unusable value is dropped, and the result still counts."""

import re
from typing import NamedTuple

from router.domain.defects import Defect
from router.domain.json import JsonValue
from router.wire.fields import MAX_MS, MAX_TOKENS, MAX_USD, MICROUSD
from router.wire.problems import Problems, named

_is_number = re.compile(r"\s*[+-]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,3})?\s*", re.ASCII).fullmatch


class Tokens(NamedTuple):
    """The tokens of a task: all, and how many of them were read and written; None: not reported."""

    total: int | None = None
    input: int | None = None
    output: int | None = None


def latency_of(value: JsonValue, dropped: Problems) -> int | None:
    """Read milliseconds and round them: workers measure fractions."""
    measured = _measure(value, "latency_ms", MAX_MS, dropped)
    return None if measured is None else round(measured)


def cost_of(value: JsonValue, dropped: Problems) -> int | None:
    """Read an amount in USD as integer micro-USD, halves rounded up."""
    measured = _measure(value, "cost", MAX_USD, dropped)
    return None if measured is None else int(measured * MICROUSD + 0.5)


def tokens_of(value: JsonValue, dropped: Problems) -> Tokens:
    """Read a number of tokens, or `{input, output, total}`.

    Without a total, the total is the sum of the parts that are present. A total that differs from the sum wins, with a
    warning.
    """
    if not isinstance(value, dict):
        return Tokens(_count(value, "tokens", dropped))
    read = _count(value.get("input"), "tokens.input", dropped)
    written = _count(value.get("output"), "tokens.output", dropped)
    total = _count(value.get("total"), "tokens.total", dropped)
    usable = (read is None) == (value.get("input") is None) and (written is None) == (value.get("output") is None)
    if total is None and usable and (read is not None or written is not None):
        total = _count((read or 0) + (written or 0), "tokens", dropped)
    elif total is None and usable:
        dropped.add("tokens", message="has no input, output or total")
    elif read is not None and written is not None and total is not None and total != read + written:
        dropped.warn(Defect.CONTRADICTION, "tokens.total", text="is not input + output: the total counts")
    return Tokens(total, read, written)


def _count(value: JsonValue, path: str, dropped: Problems) -> int | None:
    measured = _measure(value, path, MAX_TOKENS, dropped)
    return None if measured is None else round(measured)


def _measure(value: JsonValue, path: str, maximum: int, dropped: Problems) -> int | float | None:
    """Read a number from 0 to `maximum`, which may be text; an empty text is absent."""
    if type(value) is str and _is_number(value):
        dropped.warn(Defect.OTHER_FORM, path, text="is a string: read as a number")
        value = float(value)
    if (type(value) is int or type(value) is float) and 0 <= value <= maximum:
        return value
    if value is not None and value != "":
        is_number = type(value) is int or type(value) is float
        dropped.add(path, message=f"is not from 0 to {maximum:,}" if is_number else f"is {named(value)}")
    return None
