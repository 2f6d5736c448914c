"""Kinds that contain other kinds: optional values, lists, and objects whose field names are free."""

from typing import Generic, TypeVar

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.kinds import Kind, Report, shown
from router.domain.policy.tables import at

T = TypeVar("T")


class Maybe(Struct, Generic[T], frozen=True):
    """A value that may be absent. An absent field compiles to None, and None is left out of the document."""

    kind: Kind[T]

    def read(self, value: JsonValue, path: str, report: Report) -> T | None:
        return self.kind.read(value, path, report)

    def write(self, value: T | None) -> JsonValue:
        return None if value is None else self.kind.write(value)

    def schema(self) -> JsonObject:
        return self.kind.schema()


class ListOf(Struct, Generic[T], frozen=True):
    """A list of minimum..maximum items.

    `unique`: the names, present and old, of a field whose text must be unique. `single`: one text or number may stand
    without its list.
    """

    item: Kind[T]
    maximum: int
    minimum: int = 0
    unique: tuple[str, ...] = ()
    single: bool = False

    def read(self, value: JsonValue, path: str, report: Report) -> tuple[T, ...] | None:
        if self.single and isinstance(value, str | int | float) and not isinstance(value, bool):
            only = self.item.read(value, path, report)
            return None if only is None else (only,)
        if not isinstance(value, list):
            report.wrong_type(path, expected="a list", value=value)
            return None
        if not self.minimum <= len(value) <= self.maximum:
            report.problem(path, message=f"has {len(value)} items, but {self.minimum}..{self.maximum} are allowed")
            return None
        items = [self.item.read(v, f"{path}[{i}]", report) for i, v in enumerate(value)]
        if self._report_duplicates(value, path, report):
            return None
        accepted = tuple(i for i in items if i is not None)
        return accepted if len(accepted) == len(items) else None

    def _report_duplicates(self, value: list[JsonValue], path: str, report: Report) -> bool:
        """Check the raw document, so that duplicates are reported even among items that have other problems."""
        first_index: dict[str, int] = {}
        before = len(report.problems)
        for i, item in enumerate(value):
            field = next((f for f in self.unique if isinstance(item, dict) and f in item), None)
            text = item[field] if field is not None and isinstance(item, dict) else None
            if field is not None and isinstance(text, str) and (first := first_index.setdefault(text, i)) != i:
                message = f"{shown(text)} is already the {self.unique[0]} of {path}[{first}]"
                report.problem(f"{path}[{i}].{field}", message=message, hint="rename one of the two")
        return len(report.problems) > before

    def write(self, value: tuple[T, ...]) -> JsonValue:
        return [self.item.write(v) for v in value]

    def schema(self) -> JsonObject:
        schema: JsonObject = {"type": "array", "items": self.item.schema(), "maxItems": self.maximum}
        if self.minimum:
            schema["minItems"] = self.minimum
        return {"anyOf": [self.item.schema(), schema]} if self.single else schema


class MapOf(Struct, Generic[T], frozen=True):
    """An object whose field names match one pattern. It compiles to pairs that are sorted by name."""

    key: Kind[str]
    item: Kind[T]
    maximum: int

    def read(self, value: JsonValue, path: str, report: Report) -> tuple[tuple[str, T], ...] | None:
        if not isinstance(value, dict):
            report.wrong_type(path, expected="an object", value=value)
            return None
        if len(value) > self.maximum:
            report.problem(path, message=f"has {len(value)} fields, but at most {self.maximum} are allowed")
            return None
        before = len(report.problems)
        pairs: list[tuple[str, T]] = []
        for name, inner in value.items():
            key = self.key.read(name, at(path, name), report)
            item = self.item.read(inner, at(path, name), report)
            if key is not None and item is not None:
                pairs.append((key, item))
        return tuple(sorted(pairs, key=lambda p: p[0])) if len(report.problems) == before else None

    def write(self, value: tuple[tuple[str, T], ...]) -> JsonValue:
        return {name: self.item.write(item) for name, item in value}

    def schema(self) -> JsonObject:
        return {
            "type": "object",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.item.schema(),
            "maxProperties": self.maximum,
        }
