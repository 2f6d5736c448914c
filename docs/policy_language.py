"""The policy language as the reference shows it: every field from the tables that the parser reads with, and examples.

The examples are files in policy_examples/; tests/test_policy_language.py runs each of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from router.domain.policy.collections import ListOf, MapOf, Maybe
from router.domain.policy.durations import Duration, Seconds
from router.domain.policy.fallbacks import OldFallback, Status
from router.domain.policy.fields import WeightsMap
from router.domain.policy.kinds import Choice, Flag, Free, Int, Number, Report, Text, Usd, plain
from router.domain.policy.tables import REQUIRED, Field, Nested, Table

EXAMPLES = Path(__file__).parent / "policy_examples"
HEAD = ("field", "type and bounds", "default", "what it says")

INTRO = """## Policy language

A policy is a JSON object, at most 64 KiB, named by tenant and policy id; a request without `policy_id` gets the policy
`default`. Costs are US dollars. Unknown fields are refused, except under `metadata`; nothing is clamped. All mistakes
of a document are told at once: `router policy check FILE…` does it without a server, `router policy schema` prints the
JSON Schema. A field's old name still loads; beside the new one it is ignored with a warning.
"""

EXAMPLES_INTRO = """### Examples

Each is a file in [policy_examples](policy_examples), and a test runs it through the parser and the planner. Try one:
`jq .policy docs/policy_examples/weights.json | router policy check -`, or apply it and ask with `router decide`.
*Candidates* are in the order in which the store tries them: the first that its breaker, concurrency and limits let
through gets the task.
"""


def kind_text(kind: Any) -> str:
    """A kind in words: type and bounds.

    :raises TypeError: nobody has said how to describe it.
    """
    text = in_words(kind) or number_in_words(kind) or WORDS.get(type(kind))
    if text is None:
        raise TypeError(f"say here how to describe a {type(kind).__name__}")
    return text


WORDS = {
    Flag: "true or false",
    Status: "a status word, a number such as 503, or a class such as `5xx`",
    WeightsMap: "object: provider name → weight, all in 0..1 or in 0..100",
    OldFallback: "provider name, or `{provider, conditions[]}`",
}


def in_words(kind: Any) -> str | None:
    """Texts, choices, and kinds made of kinds."""
    match kind:
        case Maybe(kind=inner):
            return kind_text(inner)
        case ListOf(item=item, minimum=minimum, maximum=maximum):
            return f"list of {minimum}..{maximum}: {kind_text(item)}"
        case MapOf(key=key, item=item, maximum=maximum):
            return f"object of up to {maximum}: {kind_text(key)} → {kind_text(item)}"
        case Nested(table=table):
            return f"object ({table.what})"
        case Choice(words=words, later=later):
            return " or ".join(f"`{w.value}`" for w in words if w.value not in later)
        case Text(what=what):
            return str(what)
        case Free(deepest=deepest):
            return f"any object, up to {deepest} levels deep"
        case _:
            return None


def number_in_words(kind: Any) -> str | None:
    """Numbers and times, with their bounds."""
    match kind:
        case Int(minimum=minimum, maximum=maximum):
            return f"whole number {minimum}..{maximum}"
        case Number(minimum=minimum, maximum=maximum, positive=positive):
            return f"number {'above ' if positive else ''}{plain(minimum)}..{plain(maximum)}"
        case Usd(maximum=maximum):
            return f"USD 0..{maximum}"
        case Seconds(minimum=minimum, maximum=maximum):
            return f"whole seconds {minimum}..{maximum}"
        case Duration(minimum=minimum, maximum=maximum):
            return f"duration {minimum}..{maximum}"
        case _:
            return None


def inner_table(kind: Any) -> Table | None:
    """The table of an object, or of a list's items."""
    match kind:
        case Maybe(kind=inner):
            return inner_table(inner)
        case ListOf(item=item):
            return inner_table(item)
        case Nested(table=table):
            return table
        case _:
            return None


def default_text(field: Field[Any]) -> str:
    """What an absent field means; nothing when that cannot be written down (a section is off, a list is empty)."""
    if field.default is REQUIRED:
        return "**required**"
    if field.default is None or field.default in ((), {}):
        return ""
    value = field.kind.write(field.default)
    refused = Report()
    field.kind.read(value, "", refused)
    return "" if refused.problems or value == {} else f"`{orjson.dumps(value).decode()}`"


def rows(table: Table) -> Iterator[tuple[str, ...]]:
    """The fields of an object, each old name after the field that it names."""
    for field in table.fields:
        yield f"`{field.name}`", kind_text(field.kind), default_text(field), field.doc
        for old, kind in field.old:
            yield f"`{old}` (old)", kind_text(kind), "", f"Old form of `{field.name}`."


def sections(path: str, table: Table) -> Iterator[tuple[str, Table]]:
    """The object at a path, and all objects within it."""
    yield path, table
    for field in table.fields:
        inner = inner_table(field.kind)
        if inner is not None:
            name = f"{field.name}[]" if isinstance(field.kind, ListOf) else field.name
            yield from sections(f"{path}.{name}" if path else name, inner)


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """The examples by name, in the order that their files give."""
    found = [(file.stem, orjson.loads(file.read_bytes())) for file in EXAMPLES.glob("*.json")]
    yield from sorted(found, key=lambda e: (e[1]["place"], e[0]))


def example(name: str, one: dict[str, Any]) -> str:
    """One example in Markdown."""
    parts = [
        f"#### {one['title']}\n\n[{name}.json](policy_examples/{name}.json). {one['text']}\n",
        block(one["policy"]),
    ]
    if "request" in one:
        parts += ["asked with\n", block(one["request"])]
    parts += ["gives\n", block(one["gives"])]
    return "\n".join(parts)


def block(value: Any) -> str:
    """A value as a code block: one line an entry, small things on one line."""
    return f"```json\n{compact(value, 0)}\n```\n"


def compact(value: Any, depth: int) -> str:
    """JSON that a reader takes in: what fits on a line is on a line."""
    flat = json_line(value)
    if len(flat) + 2 * depth <= 110 or not isinstance(value, dict | list) or not value:
        return flat
    pad = "  " * (depth + 1)
    if isinstance(value, dict):
        lines = [f"{pad}{json_line(k)}: {compact(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}"
    return "[\n" + ",\n".join(pad + compact(v, depth + 1) for v in value) + "\n" + "  " * depth + "]"


def json_line(value: Any) -> str:
    """JSON on one line, with spaces as people write it."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json_line(k)}: {json_line(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(json_line, value)) + "]"
        case _:
            return orjson.dumps(value).decode()
