"""The kinds of values in a policy document: how a value is read, written back and described in the JSON Schema.

A kind compiles plain JSON to a value of the model. It reports problems and does not raise, so an author gets all of
them at once. A bad value is never clamped into range, nor is a string converted to a number.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue
from router.errors import Problem

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

MICRO = 1_000_000
_TYPE_NAMES = {type(None): "null", bool: "a boolean", str: "a string", list: "a list", dict: "an object"}


class Report:
    """All problems and warnings of one document."""

    __slots__ = ("problems", "warnings")

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def problem(self, path: str, *, message: str, hint: str = "") -> None:
        """Add a problem; the document will be refused."""
        self.problems.append(Problem(path, message=message, hint=hint))

    def warn(self, path: str, *, message: str, hint: str = "") -> None:
        """Add a warning; it does not refuse the document."""
        self.warnings.append(Problem(path, message=message, hint=hint))

    def wrong_type(self, path: str, *, expected: str, value: JsonValue, hint: str = "") -> None:
        """Add a problem: the value has the wrong type."""
        actual = _TYPE_NAMES.get(type(value), "a number")
        self.problem(path, message=f"expected {expected}, got {actual}", hint=hint)


class Kind(Protocol[T]):
    """Compiles a JSON value to a T, and writes a T back as JSON that compiles to the same T."""

    def read(self, value: JsonValue, path: str, report: Report) -> T | None:
        """Compile the value at `path`; None: it is invalid, and the problem is in the report."""

    def write(self, value: T) -> JsonValue:
        """The canonical JSON of a value. Equal values have equal JSON."""

    def schema(self) -> JsonObject:
        """The JSON Schema (draft 2020-12) of the values that `read` accepts."""


def plain(value: float) -> int | float:
    """The number, as an int if it is whole."""
    return int(value) if value == int(value) else value


class Int(Struct, frozen=True, kw_only=True):
    """A whole number in minimum..maximum. `30.0` is accepted, as in JSON Schema."""

    minimum: int
    maximum: int

    def read(self, value: JsonValue, path: str, report: Report) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            hint = f"write {value} without quotes" if isinstance(value, str) and value.isdigit() else ""
            report.wrong_type(path, expected="a whole number", value=value, hint=hint)
            return None
        if value != value // 1:
            report.problem(path, message=f"{value} is not a whole number")
            return None
        if not self.minimum <= value <= self.maximum:
            report.problem(path, message=f"{plain(value)} is outside {self.minimum}..{self.maximum}")
            return None
        return int(value)

    def write(self, value: int) -> JsonValue:
        return value

    def schema(self) -> JsonObject:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


class Number(Struct, frozen=True, kw_only=True):
    """A number in minimum..maximum; with `positive`, above zero."""

    minimum: float
    maximum: float
    positive: bool = False

    def read(self, value: JsonValue, path: str, report: Report) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            report.wrong_type(path, expected="a number", value=value)
            return None
        if not self.minimum <= value <= self.maximum:
            report.problem(path, message=f"{value} is outside {plain(self.minimum)}..{plain(self.maximum)}")
            return None
        if self.positive and value <= 0:
            report.problem(path, message="must be above 0")
            return None
        return float(value)

    def write(self, value: float) -> JsonValue:
        return plain(value)

    def schema(self) -> JsonObject:
        low = "exclusiveMinimum" if self.positive else "minimum"
        return {"type": "number", low: plain(self.minimum), "maximum": plain(self.maximum)}


class Usd(Struct, frozen=True):
    """An amount of US dollars. It compiles to whole micro-USD (0.0025 → 2500); finer fractions are rounded."""

    maximum: int

    def read(self, value: JsonValue, path: str, report: Report) -> int | None:
        usd = Number(minimum=0, maximum=self.maximum).read(value, path, report)
        return None if usd is None else round(usd * MICRO)

    def write(self, value: int) -> JsonValue:
        return plain(value / MICRO)

    def schema(self) -> JsonObject:
        return Number(minimum=0, maximum=self.maximum).schema()


class Flag(Struct, frozen=True):
    """A boolean."""

    def read(self, value: JsonValue, path: str, report: Report) -> bool | None:
        if isinstance(value, bool):
            return value
        report.wrong_type(path, expected="true or false", value=value)
        return None

    def write(self, value: bool) -> JsonValue:
        return value

    def schema(self) -> JsonObject:
        return {"type": "boolean"}


class Text(Struct, frozen=True, kw_only=True):
    """A string that matches the whole `pattern`; `what` describes the pattern in messages."""

    pattern: str
    what: str

    def read(self, value: JsonValue, path: str, report: Report) -> str | None:
        if not isinstance(value, str):
            report.wrong_type(path, expected="a string", value=value)
            return None
        if re.fullmatch(self.pattern, value) is None:
            report.problem(path, message=f"{shown(value)} is not {self.what}")
            return None
        return value

    def write(self, value: str) -> JsonValue:
        return value

    def schema(self) -> JsonObject:
        return {"type": "string", "pattern": f"^{self.pattern}$"}


class Choice(Struct, Generic[E], frozen=True):
    """One of a few words. `later`: words that only a later version supports, each with the hint for an author."""

    words: type[E]
    later: Mapping[str, str] = {}

    def read(self, value: JsonValue, path: str, report: Report) -> E | None:
        if not isinstance(value, str):
            report.wrong_type(path, expected="a string", value=value, hint=f"one of {self._allowed()}")
            return None
        if value in self.later:
            report.problem(path, message=f'"{value}" is not supported in this version', hint=self.later[value])
            return None
        word = next((w for w in self.words if w.value == value), None)
        if word is None:
            report.problem(path, message=f"{shown(value)} is not one of {self._allowed()}")
        return word

    def write(self, value: E) -> JsonValue:
        return value.value

    def schema(self) -> JsonObject:
        return {"enum": [w.value for w in self.words if w.value not in self.later]}

    def _allowed(self) -> str:
        return ", ".join(w.value for w in self.words if w.value not in self.later)


class Free(Struct, frozen=True):
    """An object with any content; only its depth is bounded."""

    deepest: int = 32

    def read(self, value: JsonValue, path: str, report: Report) -> JsonObject | None:
        if not isinstance(value, dict):
            report.wrong_type(path, expected="an object", value=value)
            return None
        if _deeper_than(value, self.deepest):
            report.problem(path, message=f"is nested deeper than {self.deepest} levels")
            return None
        return value

    def write(self, value: JsonObject) -> JsonValue:
        return value

    def schema(self) -> JsonObject:
        return {"type": "object"}


def _deeper_than(value: JsonValue, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(v, levels - 1) for v in children)


def shown(text: str) -> str:
    """A string from the document for use in a message: quoted, in ASCII, and shortened."""
    quoted = ascii(text if len(text) <= 64 else text[:61] + "...")
    return f'"{quoted[1:-1]}"'
