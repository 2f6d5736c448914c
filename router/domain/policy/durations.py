"""Durations in a policy document: texts with a unit, or whole seconds. Compiled policies have milliseconds."""

import re

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.kinds import Int, Report, shown

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(0|[1-9][0-9]{0,11})(ms|s|m|h|d)")


class Duration(Struct, frozen=True, kw_only=True):
    """A duration such as "500ms", "60s", "10m", "24h" or "7d". It compiles to milliseconds."""

    minimum: str
    maximum: str

    def read(self, value: JsonValue, path: str, report: Report) -> int | None:
        if not isinstance(value, str):
            hint = f'write "{value}s" for {value} seconds' if type(value) in {int, float} else ""
            report.wrong_type(path, expected='a duration such as "60s"', value=value, hint=hint)
            return None
        if _DURATION.fullmatch(value) is None:
            hint = 'write a whole number and ms, s, m, h or d, such as "60s"'
            report.problem(path, message=f"{shown(value)} is not a duration", hint=hint)
            return None
        ms = duration_ms(value)
        if not duration_ms(self.minimum) <= ms <= duration_ms(self.maximum):
            report.problem(path, message=f"{value} is outside {self.minimum}..{self.maximum}")
            return None
        return ms

    def write(self, value: int) -> JsonValue:
        unit = next(u for u in reversed(_UNITS_MS) if value % _UNITS_MS[u] == 0)
        return f"{value // _UNITS_MS[unit]}{unit}"

    def schema(self) -> JsonObject:
        return {"type": "string", "pattern": f"^{_DURATION.pattern}$"}


def duration_ms(text: str) -> int:
    """The milliseconds of a well-formed duration."""
    digits = text.rstrip("mshd")
    return int(digits) * _UNITS_MS[text[len(digits) :]]


class Seconds(Struct, frozen=True, kw_only=True):
    """A whole number of seconds. It compiles to milliseconds."""

    minimum: int
    maximum: int

    def read(self, value: JsonValue, path: str, report: Report) -> int | None:
        seconds = Int(minimum=self.minimum, maximum=self.maximum).read(value, path, report)
        return None if seconds is None else seconds * 1000

    def write(self, value: int) -> JsonValue:
        return value // 1000

    def schema(self) -> JsonObject:
        return Int(minimum=self.minimum, maximum=self.maximum).schema()
