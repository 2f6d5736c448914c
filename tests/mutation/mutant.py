"""A mutant: one small change to one source file, and what becomes of it."""

import ast
import difflib
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct


class Candidate(Struct, frozen=True):
    """A mutant that may be judged. `path` is relative to the root; `change` makes the changed source."""

    path: str
    where: str
    """Function or method that holds the change, such as `Lane.put`; empty at module level."""
    what: str
    """The change in words that do not depend on line numbers; the lists of accepted survivors are matched with it."""
    change: Callable[[], str]

    @property
    def name(self) -> str:
        """For reports and a stable order."""
        return f"{self.path}:{self.where}: {self.what}"

    def mutant(self, before: str) -> "Mutant":
        """The mutant, from the unchanged source."""
        source = self.change()
        return Mutant(self.path, self.name, Outline(before).changed(source), source)


class Mutant(Struct, frozen=True):
    """A changed file in full. `lines`: those of the unchanged file that a test must execute to notice the change."""

    path: str
    name: str
    lines: tuple[int, ...]
    source: str


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "a test fails"
    TIMED_OUT = "the tests do not end in time"
    REFUSED = "mypy refuses it"
    SURVIVED = "no test fails"
    UNCOVERED = "no test executes it"


NOTICED = frozenset({Fate.KILLED, Fate.TIMED_OUT, Fate.REFUSED})


class Verdict(Struct, frozen=True):
    """The end of one mutant. `by`: the test that failed, or how many ran."""

    mutant: Mutant
    fate: Fate
    by: str = ""
    seconds: float = 0

    @property
    def noticed(self) -> bool:
        """Whether the change would be found before it is released."""
        return self.fate in NOTICED


def diff(before: str, mutant: Mutant) -> str:
    """What the mutant changes, as a unified diff without its file header."""
    lines = difflib.unified_diff(before.splitlines(), mutant.source.splitlines(), lineterm="", n=1)
    return "\n".join(list(lines)[2:])


class Outline:
    """Functions and statements of one source by line."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self._lines = source.splitlines()
        self._functions: list[tuple[int, int, str]] = []
        self._statements: list[range] = []
        self._collect(self.tree, "")

    def function(self, line: int) -> str:
        """The innermost function or class that holds `line`, such as `Lane.put`; empty at module level."""
        holding = [(first, name) for first, last, name in self._functions if first <= line <= last]
        return max(holding, default=(0, ""))[1]

    def changed(self, source: str) -> tuple[int, ...]:
        """The lines of every statement that `source` changes; of a compound statement, the lines of its head."""
        after = source.splitlines()
        first = next((i for i, (a, b) in enumerate(zip(self._lines, after, strict=False)) if a != b), 0)
        tail = zip(reversed(self._lines), reversed(after), strict=False)
        last = len(self._lines) - 1 - next((i for i, (a, b) in enumerate(tail) if a != b), 0)
        lines = range(first + 1, max(first, last) + 2)
        held = {line for s in self._statements if s.start < lines.stop and lines.start < s.stop for line in s}
        return tuple(sorted(held or set(lines)))

    def _collect(self, node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self._functions.append((child.lineno, child.end_lineno or child.lineno, prefix + child.name))
                name = f"{prefix}{child.name}."
            if isinstance(child, ast.stmt):
                body: list[ast.stmt] = getattr(child, "body", [])
                end = body[0].lineno if body else (child.end_lineno or child.lineno) + 1
                self._statements.append(range(child.lineno, max(end, child.lineno + 1)))
            self._collect(child, name)
