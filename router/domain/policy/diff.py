"""The differences between two canonical policy documents, by paths in the document."""

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue

_NAMES = ("name", "id")


class Change(Struct, frozen=True, kw_only=True):
    """One difference. `path` names list items, as in `providers[gpu-1].weight`. None: the field is absent."""

    path: str
    before: JsonValue
    after: JsonValue

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path}: {_text(self.after)}"
        if self.after is None:
            return f"- {self.path}: {_text(self.before)}"
        return f"~ {self.path}: {_text(self.before)} → {_text(self.after)}"


def _text(value: JsonValue) -> str:
    match value:
        case dict():
            return ", ".join(f"{k} {_text(v)}" for k, v in sorted(value.items()) if k not in _NAMES) or "on"
        case list():
            return "[" + ", ".join(map(_text, value)) + "]"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def diff(before: JsonObject | None, *, after: JsonObject | None) -> tuple[Change, ...]:
    """List all differences, ordered by path. A document that is None does not exist.

    Canonical documents leave defaults out, so a default that is written out makes no difference. The order of providers
    and limits makes none either.
    """
    changes: list[Change] = []
    _compare("", before or {}, after=after or {}, changes=changes)
    return tuple(sorted(changes, key=lambda c: c.path))


def _compare(path: str, before: JsonValue, *, after: JsonValue, changes: list[Change]) -> None:
    old, new = _by_name(before), _by_name(after)
    if old is None or new is None:
        if before != after:
            changes.append(Change(path=path, before=before, after=after))
        return
    for key in old.keys() | new.keys():
        inner = f"{path}{key}" if key.startswith("[") or not path else f"{path}.{key}"
        if key in old and key in new:
            _compare(inner, old[key], after=new[key], changes=changes)
        elif _by_name(part := old.get(key, new.get(key))) is not None and isinstance(part, list):
            _compare(inner, old.get(key, []), after=new.get(key, []), changes=changes)
        else:
            changes.append(Change(path=inner, before=old.get(key), after=new.get(key)))


def _by_name(value: JsonValue) -> JsonObject | None:
    """The parts of a value, by their name in a path; None if it has no parts with unique names."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return None
    parts: JsonObject = {}
    for item in value:
        name = next((item[n] for n in _NAMES if n in item), None) if isinstance(item, dict) else None
        if name is None or f"[{name}]" in parts:
            return None
        parts[f"[{name}]"] = item
    return parts
