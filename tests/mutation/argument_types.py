"""The types of expressions, as mypy finds them."""

import ast
from collections.abc import Mapping
from pathlib import Path

from mypy.build import BuildResult, build
from mypy.config_parser import parse_config_file
from mypy.errors import CompileError
from mypy.find_sources import create_source_list
from mypy.nodes import Expression, MypyFile
from mypy.options import Options
from mypy.server.subexpr import get_subexpressions
from mypy.subtypes import is_proper_subtype, is_subtype
from mypy.types import CallableType, Instance, LiteralType, ProperType, Type, get_proper_type


class NotTyped(Exception):
    """mypy cannot build the package; the message is its own."""


class Typed:
    """A package that mypy has read whole."""

    def __init__(self, root: Path, package: str) -> None:
        options = Options()
        config = root / "pyproject.toml"
        if config.exists():
            parse_config_file(options, lambda: None, str(config))
        options.packages = []
        options.export_types = options.preserve_asts = True
        options.incremental = False
        options.mypy_path = [str(root)]
        try:
            self._built: BuildResult = build(create_source_list([str(root / package)], options), options)
        except CompileError as e:
            raise NotTyped("\n".join(e.messages)) from e
        if self._built.errors:
            raise NotTyped("\n".join(self._built.errors))
        self._types: Mapping[Expression, Type] = self._built.types

    def file(self, module: str) -> "TypedFile":
        """One module of it, such as `router.domain.decide.plan`."""
        return TypedFile(self._built.files[module], self._types)


class TypedFile:
    """The expressions of one module."""

    def __init__(self, tree: MypyFile, types: Mapping[Expression, Type]) -> None:
        self._nodes: dict[tuple[int, int, int | None, int | None], Expression] = {}
        for expression in get_subexpressions(tree):
            span = expression.line, expression.column, expression.end_line, expression.end_column
            self._nodes.setdefault(span, expression)
        self._types = types

    def can_swap(self, call: ast.Call, at: int) -> bool:
        """Whether the arguments `at` and `at` + 1 have one type, so that mypy accepts the call with both swapped.

        One type: the same, or one a subtype of the other (int beside float, str beside str | None). Where mypy knows
        the parameters, each argument must fit that of the other, too.
        """
        first, second = self._type(call.args[at]), self._type(call.args[at + 1])
        if first is None or second is None:
            return False
        if not (is_proper_subtype(first, second) or is_proper_subtype(second, first)):
            return False
        formal = self._parameters(call, at)
        return formal is None or (is_subtype(second, formal[0]) and is_subtype(first, formal[1]))

    def _type(self, expression: ast.expr) -> ProperType | None:
        node = self._node(expression)
        found = self._types.get(node) if node else None
        return None if found is None else _plain(found)

    def _node(self, expression: ast.expr) -> Expression | None:
        span = expression.lineno, expression.col_offset, expression.end_lineno, expression.end_col_offset
        return self._nodes.get(span)

    def _parameters(self, call: ast.Call, at: int) -> tuple[Type, Type] | None:
        """The types of the parameters of both; None: mypy alone can tell (overloads, type variables, *args)."""
        node = self._node(call.func)
        callee = get_proper_type(self._types.get(node)) if node else None
        if not isinstance(callee, CallableType) or callee.variables or at + 1 >= len(callee.arg_types):
            return None
        if not all(kind.is_positional() for kind in callee.arg_kinds[: at + 2]):
            return None
        return callee.arg_types[at], callee.arg_types[at + 1]


def _plain(of: Type) -> ProperType:
    """Without what a literal remembers of its value: 1 and 2 are both int."""
    proper = get_proper_type(of)
    if isinstance(proper, LiteralType):
        return proper.fallback
    if isinstance(proper, Instance) and proper.last_known_value is not None:
        return proper.copy_modified(last_known_value=None)
    return proper
