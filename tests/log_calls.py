"""Reads the log calls of a module's source: does the text of each have a place for every value?"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_ROWS = ".text"
_PLACE = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?([a-zA-Z%])")


def wrong(source: str) -> Iterator[str]:
    """What is wrong with each log call that passes values, with its line.

    Its text is a literal, a name that this module gives one, or the field `text` of a row whose literals are in this
    module; it has one place for each value. `logging` notices neither before the line is written, and then drops it.
    """
    if "log." not in source:
        return  # most modules log nothing; the walk below costs ten milliseconds
    nodes = list(ast.walk(ast.parse(source)))
    texts = _texts(nodes)
    for call in nodes:
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


def _texts(nodes: Iterable[ast.AST]) -> dict[str, list[str]]:
    """The literals that each name is given anywhere in the module, and those that have places."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found[name].append(text)
            case ast.Constant(value=str(text)) if _places(text):
                found[_ROWS].append(text)
    return found


def _literals(text: ast.expr, texts: dict[str, list[str]]) -> list[str]:
    match text:
        case ast.Constant(value=str(literal)):
            return [literal]
        case ast.Name(id=name):
            return texts.get(name, [])
        case ast.Attribute(attr="text"):
            return texts.get(_ROWS, [])
    return []


def _places(text: str) -> int:
    return sum(place != "%" for place in _PLACE.findall(text))
