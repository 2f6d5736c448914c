"""Swaps of neighbouring arguments of one type: `python -m tests.mutation.swaps --count 100 --seed 7` (or `--all`).

A call that passes `user_id, trace_id` by position still type-checks with both swapped. So for every call in `router/`
with two neighbours of one type this swaps them, one pair at a time, and expects a test to fail. A pair whose order
cannot matter is listed in `symmetric.toml` with the reason.
"""

import ast
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.mutation.argument_types import Typed, TypedFile
from tests.mutation.command import Kind, run
from tests.mutation.line_map import module_name
from tests.mutation.mutant import Candidate, Outline

PACKAGE = "router"
GENERATED = "router/wire/pb/"
LIST = Path(__file__).with_name("symmetric.toml")


def find(root: Path, package: str = PACKAGE) -> list[Candidate]:
    """Every swap in the package, in the order of paths and lines."""
    typed = Typed(root, package)
    found: list[Candidate] = []
    for path in sorted((root / package).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(GENERATED):
            found += swaps_of(name, path.read_text(encoding="utf-8"), typed.file(module_name(name)))
    return found


def swaps_of(path: str, source: str, typed: TypedFile) -> Iterator[Candidate]:
    """The swaps of one file."""
    outline, text = Outline(source), _Text(source)
    for call in ast.walk(outline.tree):
        if isinstance(call, ast.Call):
            for at in _pairs(call):
                if typed.can_swap(call, at):
                    first, second = call.args[at], call.args[at + 1]
                    what = f"{ast.unparse(call.func)}(… {ast.unparse(first)} ⇄ {ast.unparse(second)} …)"
                    change = partial(text.swapped, first, second)
                    yield Candidate(path, outline.function(call.lineno), what, change)


def _pairs(call: ast.Call) -> Iterator[int]:
    """Places of neighbours that are neither unpacked nor equal in text."""
    for at, (first, second) in enumerate(zip(call.args, call.args[1:], strict=False)):
        starred = any(isinstance(a, ast.Starred) for a in call.args[: at + 2])
        if not starred and ast.dump(first) != ast.dump(second):
            yield at


class _Text:
    """A source by byte offsets, in which `ast` counts columns."""

    def __init__(self, source: str) -> None:
        self._bytes = source.encode()
        self._starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def swapped(self, first: ast.expr, second: ast.expr) -> str:
        """The source with both exchanged."""
        (a, b), (c, d) = self._span(first), self._span(second)
        whole = self._bytes
        return (whole[:a] + whole[c:d] + whole[b:c] + whole[a:b] + whole[d:]).decode()

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset


def main() -> int:
    """Judge the swaps."""
    return run("swaps", __doc__, Kind(find, LIST, count=100))


if __name__ == "__main__":
    sys.exit(main())
