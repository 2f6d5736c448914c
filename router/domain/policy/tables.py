"""Tables of fields: one table per kind of object in a policy document reads, writes and describes it.

A field may have old names. If a document has the present name too, the old one is ignored with a warning.
"""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.kinds import Kind, Report, shown

T = TypeVar("T")


_MANY = 50


class _Required:
    """The type of `REQUIRED`, which marks a field without a default."""


REQUIRED: Final = _Required()


class Field(Struct, Generic[T], frozen=True):
    """One field. `doc` describes it for authors. `old`: its old names, each with the kind that it had."""

    name: str
    kind: Kind[T]
    doc: str
    default: T | _Required = REQUIRED
    old: tuple[tuple[str, Kind[T]], ...] = ()

    def entry(self, value: T) -> tuple[str, JsonValue] | None:
        """Name and value of the field in canonical JSON; None if the value is the default."""
        return None if value == self.default else (self.name, self.kind.write(value))


class Row:
    """The values of one object, typed by their fields. `complete`: all fields are valid."""

    __slots__ = ("_values", "complete")

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self.complete = True

    def __getitem__(self, field: Field[T]) -> T:
        """The value, or the default of an absent field. Use it only if the row is complete."""
        return cast(T, self._values.get(field.name, field.default))

    def get(self, field: Field[T]) -> T | None:
        """The value, or the default of an absent field; None if it is invalid, or required and absent."""
        value = self._values.get(field.name, field.default)
        return None if value is REQUIRED else cast(T, value)

    def given(self, field: Field[T]) -> bool:
        """Whether the document has the field, valid or not."""
        return field.name in self._values

    def put(self, name: str, value: object) -> None:
        """Set the value of a field; None: it is invalid."""
        self._values[name] = value


class Table(Struct, frozen=True):
    """The fields of one object; `what` names the object in messages.

    `switch`: the name of a flag. If it is false, no field is required.
    """

    what: str
    fields: tuple[Field[Any], ...]
    switch: str | None = None

    def read(self, value: JsonValue, path: str, report: Report) -> Row | None:
        """Read the fields of an object; None if the value is not an object."""
        if not isinstance(value, dict):
            report.wrong_type(path, expected=f"an object ({self.what})", value=value)
            return None
        before = len(report.problems)
        self._report_unknown_fields(value, path, report)
        row = Row()
        for field in self.fields:
            self._read_field(field=field, value=value, path=path, report=report, row=row)
        row.complete = len(report.problems) == before
        return row

    def schema(self) -> JsonObject:
        """The JSON Schema of the object. Old names are marked as deprecated."""
        properties: JsonObject = {}
        required: list[JsonValue] = []
        either: list[JsonValue] = []
        for field in self.fields:
            properties[field.name] = _described(field)
            for old, kind in field.old:
                properties[old] = {**kind.schema(), "deprecated": True, "description": f"Old form of `{field.name}`."}
            if field.default is not REQUIRED:
                continue
            if field.old:
                names = (field.name, *(old for old, _ in field.old))
                either.append({"anyOf": [{"required": [name]} for name in names]})
            else:
                required.append(field.name)
        schema: JsonObject = {"type": "object", "properties": properties, "additionalProperties": False}
        if required and self.switch is not None:
            off: JsonObject = {"properties": {self.switch: {"const": False}}, "required": [self.switch]}
            schema["anyOf"] = [{"required": required}, off]
        elif required:
            schema["required"] = required
        if either:
            schema["allOf"] = either
        return schema

    def _read_field(self, field: Field[Any], value: JsonObject, path: str, report: Report, row: Row) -> None:
        winner: str | None = None
        for name, kind in ((field.name, field.kind), *field.old):
            if name not in value:
                continue
            if winner is not None:
                report.warn(at(path, name), message=f"is ignored: `{winner}` is present", hint=f"remove `{name}`")
                continue
            winner = name
            row.put(field.name, kind.read(value[name], at(path, name), report))
        if winner is None and field.default is REQUIRED and value.get(self.switch or "") is not False:
            report.problem(at(path, field.name), message="is required", hint=field.doc)

    def _report_unknown_fields(self, value: JsonObject, path: str, report: Report) -> None:
        field_names = [name for f in self.fields for name in (f.name, *(old for old, _ in f.old))]
        for name in value:
            if name not in field_names:
                # The search for similar names is slow, so it is skipped for a document with many problems.
                similar = get_close_matches(name.lower(), field_names, 1, 0.6) if len(report.problems) < _MANY else []
                hint = (
                    f"did you mean `{similar[0]}`?"
                    if similar
                    else f"the fields of {self.what} are {', '.join(f.name for f in self.fields)}"
                )
                report.problem(at(path, name), message="unknown field", hint=hint)


def _described(field: Field[Any]) -> JsonObject:
    schema = {**field.kind.schema(), "description": field.doc}
    if field.default is not REQUIRED and (field.default or field.default is False):
        schema["default"] = field.kind.write(field.default)
    return schema


def at(path: str, name: str) -> str:
    """The path of a field in the object at `path`."""
    name = name if name.isidentifier() or name.replace("-", "_").isidentifier() else f"[{shown(name)}]"
    return f"{path}.{name}" if path and not name.startswith("[") else f"{path}{name}"


def written(*entries: tuple[str, JsonValue] | None) -> JsonObject:
    """Make an object of the given fields. Entries that are None have their default and are left out."""
    return dict(e for e in entries if e is not None)


def _no_check(row: Row, path: str, report: Report) -> None:
    """Check nothing: the fields of most objects do not depend on each other."""


class Nested(Struct, Generic[T], frozen=True):
    """An object that compiles to a T. `check` reports problems between those fields that are valid."""

    table: Table
    build: Callable[[Row], T]
    unbuild: Callable[[T], JsonObject]
    check: Callable[[Row, str, Report], None] = _no_check

    def read(self, value: JsonValue, path: str, report: Report) -> T | None:
        row = self.table.read(value, path, report)
        if row is None:
            return None
        before = len(report.problems)
        self.check(row, path, report)
        return self.build(row) if row.complete and len(report.problems) == before else None

    def write(self, value: T) -> JsonValue:
        return self.unbuild(value)

    def schema(self) -> JsonObject:
        return self.table.schema()
