"""Every list of texts in the policy language may be a single text: the cases come from the language's own tables."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from router.domain.json import JsonObject
from router.domain.policy.document import DOCUMENT, parse

TEXTS = ("chat", "timeout", "a")
"""Tried in order where a text must match a pattern."""


def sample(schema: JsonObject) -> Any:
    """A small value that the schema allows: its first alternative, and only what is required."""
    given: Any = schema
    match given.get("type"):
        case "string":
            return next(t for t in TEXTS if re.search(given.get("pattern", ""), t))
        case "array":
            return [sample(given["items"])]
        case "number" | "integer":
            return given["maximum"]
        case "object":
            either = [e["anyOf"][0] for e in given.get("allOf", [])] + given.get("anyOf", [])[:1]
            required = given.get("required", []) + [name for e in either for name in e["required"]]
            return {name: sample(given["properties"][name]) for name in required}
        case _:
            return given["enum"][0] if "enum" in given else sample(given["anyOf"][0])


def in_both_forms(schema: JsonObject, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """For each list of texts in the schema: its path, and two values that differ only there: the list, the text."""
    given: Any = schema
    if given.get("type") == "array":
        item = sample(given["items"])
        if isinstance(item, str):
            yield path, [item], item
        for where, listed, single in in_both_forms(given["items"], f"{path}[]"):
            yield where, [listed], [single]
    elif given.get("type") == "object":
        fields = dict(given.get("properties", {}))
        if isinstance(free := given.get("additionalProperties"), dict):
            fields["tier"] = free
        for name, inner in fields.items():
            for where, listed, single in in_both_forms(inner, f"{path}.{name}"):
                rest = sample(given)
                yield where, rest | {name: listed}, rest | {name: single}
    else:
        for alternative in given.get("anyOf", []):
            yield from in_both_forms(alternative, path)


FORMS = list(in_both_forms(DOCUMENT.schema()))


def test_the_lists_are_found() -> None:
    """In rules of both forms and in all three kinds of extensions."""
    assert {path for path, _, _ in FORMS} >= {
        ".fallbacks[].when.status",
        ".fallbacks[].when.context.tier",
        ".fallback.conditions",
        ".pre[].when.message_type",
        ".validators[].when.context.tier",
        ".post[].when.message_type",
    }


@pytest.mark.parametrize(("listed", "single"), [p[1:] for p in FORMS], ids=[p[0] for p in FORMS])
def test_a_single_text_stands_for_a_list_of_it(listed: JsonObject, single: JsonObject) -> None:
    """The same policy in the same canonical form, so the same hash, without a warning of its own."""
    one, same = parse(single), parse(listed)
    assert (one.policy, one.canonical, one.warnings) == (same.policy, same.canonical, same.warnings)
