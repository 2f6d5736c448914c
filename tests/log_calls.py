"""Reads the log calls of a module's source: does the text of each have a place for every value?"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_PLACE = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?([a-zA-Z%])")


def wrong(source: str) -> Iterator[str]:
    """What is wrong with each log call that passes values, with its line.

    Its text is a literal, or a name that this module gives one; it has one place for each value. `logging` notices
    neither before the line is written, and then drops the line.
    """
    tree = ast.parse(source)
    texts = _texts(tree)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _is_log(call.func) and len(call.args) > 1:
            known = _literals(call.args[0], texts)
            values = call.args[1:]
            if not known:
                yield f"line {call.lineno}: the text is no literal: {ast.unparse(call.args[0])}"
            elif not any(isinstance(v, ast.Starred) for v in values) and len(values) not in map(_places, known):
                yield f"line {call.lineno}: {len(values)} values for {' or '.join(map(repr, known))}"


def _is_log(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id == "log"
    )


def _texts(tree: ast.Module) -> dict[str, list[str]]:
    """The literals that each name is given anywhere in the module."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found[name].append(text)
    return found


def _literals(text: ast.expr, texts: dict[str, list[str]]) -> list[str]:
    match text:
        case ast.Constant(value=str(literal)):
            return [literal]
        case ast.Name(id=name):
            return texts.get(name, [])
    return []


def _places(text: str) -> int:
    return sum(place != "%" for place in _PLACE.findall(text))
