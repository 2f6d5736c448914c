"""Puts a mutant into a process that has imported the sources: its functions get the code of the changed file.

That holds for a change in the body of a function that has not run yet. Any other change, such as that of a table at
module level, takes a process that imports the changed file.
"""

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType


def in_function(before: str, after: str) -> bool:
    """Whether the two sources differ only in the bodies of functions."""
    return _outside(before) == _outside(after)


class Ran:
    """The code that ran while modules were imported: a function that made a table then has made it for good."""

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add every code that runs inside."""
        sys.setprofile(self._seen)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            self._codes.add(frame.f_code)

    def put(self, file: str, source: str) -> bool:
        """Give every function that was made from `file` its code in `source`.

        False: this process cannot hold the mutant, because a changed function has run or has no counterpart.
        """
        fresh: dict[tuple[str, int], list[CodeType]] = defaultdict(list)
        for code in _codes(compile(source, file, "exec", dont_inherit=True)):
            fresh[code.co_qualname, code.co_firstlineno].append(code)
        changed = 0
        for function in [f for f in gc.get_objects() if type(f) is FunctionType and f.__code__.co_filename == file]:
            old = function.__code__
            found = fresh[old.co_qualname, old.co_firstlineno]
            if old in found:
                continue
            if len(found) != 1 or old in self._codes or len(found[0].co_freevars) != len(old.co_freevars):
                return False
            function.__code__ = found[0]
            changed += 1
        return changed > 0


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _outside(source: str) -> str:
    """The source without the bodies of its functions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return ast.dump(tree)
