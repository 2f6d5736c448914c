"""The policy language for the reference: every field, from the tables that the parser uses, and examples.

The examples are files in policy_examples/; tests/test_policy_language.py runs each of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from router.domain.policy.collections import ListOf, MapOf, Maybe
from router.domain.policy.durations import Duration, Seconds
from router.domain.policy.fallbacks import OldFallback, StatusKind
from router.domain.policy.fields import WeightsMap
from router.domain.policy.kinds import Choice, Flag, Free, Int, Number, Report, Text, Usd, plain
from router.domain.policy.tables import REQUIRED, Field, Nested, Table

EXAMPLES = Path(__file__).parent / "policy_examples"
HEAD = ("field", "type and bounds", "default", "description")

INTRO = """## Policy language

A policy is a JSON object of at most 64 KiB. Tenant and policy id name it; a request without `policy_id` gets the policy
`default`. Costs are US dollars. Unknown fields are refused, except under `metadata`, and a value out of range is never
clamped. All mistakes of a document are reported at once. `router policy check FILE…` checks documents without a server;
`router policy schema` prints the JSON Schema. Old names of fields still load; beside the new name, an old one is
ignored with a warning.
"""

EXAMPLES_INTRO = """### Examples

Each example is a file in [policy_examples](policy_examples), and a test runs it through the parser and the planner. Try
one with `jq .policy docs/policy_examples/weights.json | router policy check -`, or apply it and run `router decide`.
*Candidates* are in the order in which the store tries them. The first that its breaker, concurrency and limits admit
gets the task.
"""


def kind_text(kind: Any) -> str:
    """A kind in words: type and bounds.

    :raises TypeError: this module has no words for the kind.
    """
    text = in_words(kind) or number_in_words(kind) or WORDS.get(type(kind))
    if text is None:
        raise TypeError(f"no words for the kind {type(kind).__name__}: add them to docs/policy_language.py")
    return text


WORDS = {
    Flag: "true or false",
    StatusKind: "a status word, a number such as 503, or a class such as `5xx`",
    WeightsMap: "object: provider name → weight, all in 0..1 or in 0..100",
    OldFallback: "provider name, or `{provider, conditions[]}`",
}


def in_words(kind: Any) -> str | None:
    """The words for texts, choices, and kinds that contain other kinds; None for other kinds."""
    match kind:
        case Maybe(kind=inner):
            return kind_text(inner)
        case ListOf(item=item, minimum=minimum, maximum=maximum, single=single):
            return f"list of {minimum}..{maximum}{', or one' if single else ''}: {kind_text(item)}"
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
    """The words for numbers and durations, with their bounds; None for other kinds."""
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
    """The default of a field; empty if it cannot be written in a document (a section is off, a list is empty)."""
    if field.default is REQUIRED:
        return "**required**"
    if field.default is None or field.default in ((), {}):
        return ""
    value = field.kind.write(field.default)
    report = Report()
    field.kind.read(value, "", report)
    return "" if report.problems or value == {} else f"`{orjson.dumps(value).decode()}`"


def rows(table: Table) -> Iterator[tuple[str, ...]]:
    """The rows of an object's fields, each followed by the rows of its old names."""
    for field in table.fields:
        yield f"`{field.name}`", kind_text(field.kind), default_text(field), field.doc
        for old, kind in field.old:
            yield f"`{old}` (old)", kind_text(kind), "", f"Old form of `{field.name}`."


def sections(path: str, table: Table) -> Iterator[tuple[str, Table]]:
    """The object at a path, and all objects inside it, with their paths."""
    yield path, table
    for field in table.fields:
        inner = inner_table(field.kind)
        if inner is not None:
            name = f"{field.name}[]" if isinstance(field.kind, ListOf) else field.name
            yield from sections(f"{path}.{name}" if path else name, inner)


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """The examples with their names, in the order of their field `place`."""
    named = [(file.stem, orjson.loads(file.read_bytes())) for file in EXAMPLES.glob("*.json")]
    yield from sorted(named, key=lambda e: (e[1]["place"], e[0]))


def example(name: str, content: dict[str, Any]) -> str:
    """One example in Markdown."""
    parts = [
        f"#### {content['title']}\n\n[{name}.json](policy_examples/{name}.json). {content['text']}\n",
        block(content["policy"]),
    ]
    if "request" in content:
        parts += ["with the request\n", block(content["request"])]
    parts += ["gives\n", block(content["gives"])]
    return "\n".join(parts)


def block(value: Any) -> str:
    """A value as a code block: one entry per line, small values on one line."""
    return f"```json\n{compact(value, 0)}\n```\n"


def compact(value: Any, depth: int) -> str:
    """JSON for readers: a value that fits on one line is on one line."""
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
