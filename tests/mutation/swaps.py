"""Swaps of neighbouring arguments of one type: `python -m tests.mutation.swaps --count 100 --seed 7` (or `--all`).

A call that passes `user_id, trace_id` by position still type-checks with both swapped. So for every call in `router/`
with two neighbours of one type this swaps them, one pair at a time, and expects a test to fail. A pair whose order
cannot matter is listed in `symmetric.toml` with the reason.
"""

import ast
import hashlib
import sys
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import msgspec

from tests.mutation import argument_types
from tests.mutation.command import Kind, run
from tests.mutation.line_map import CACHE, module_name
from tests.mutation.mutant import Candidate, Outline

PACKAGE = "router"
GENERATED = "router/wire/pb/"
LIST = Path(__file__).with_name("symmetric.toml")
NOTICED = Path(__file__).with_name("swaps.noticed")
_Pair = tuple[int, int, int]
"""Line and column of a call's end, and the place of the first of two arguments."""


def find(root: Path, package: str = PACKAGE) -> list[Candidate]:
    """Every swap in the package, in the order of paths and lines. What mypy says of a state of the sources is kept."""
    sources = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((root / package).rglob("*.py"))
        if not path.relative_to(root).as_posix().startswith(GENERATED)
    }
    tools = [sys.version, *(Path(file).read_text(encoding="utf-8") for file in (__file__, argument_types.__file__))]
    key = hashlib.sha256(msgspec.json.encode([tools, sources])).hexdigest()[:16]
    kept = root / CACHE / f"pairs-{key}.json"
    if kept.exists():
        pairs = msgspec.json.decode(kept.read_bytes(), type=dict[str, list[_Pair]])
    else:
        typed = argument_types.Typed(root, package)
        pairs = {}
        for name, source in sources.items():
            file = typed.file(module_name(name))
            pairs[name] = [pair for pair, call in _pairs(source) if file.can_swap(call, pair[2])]
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(msgspec.json.encode(pairs))
    return [swap for name, source in sources.items() for swap in swaps_of(name, source, set(pairs[name]))]


def swaps_of(path: str, source: str, accepted: Collection[_Pair]) -> Iterator[Candidate]:
    """The swaps of one file: those of its pairs that mypy accepts."""
    outline, text = Outline(source), _Text(source)
    for pair, call in _pairs(source):
        if pair in accepted:
            first, second = call.args[pair[2]], call.args[pair[2] + 1]
            what = f"{ast.unparse(call.func)}(… {ast.unparse(first)} ⇄ {ast.unparse(second)} …)"
            change = partial(text.swapped, first, second)
            yield Candidate(path, outline.function(call.lineno), what, change)


def _pairs(source: str) -> Iterator[tuple[_Pair, ast.Call]]:
    """Neighbours that are neither unpacked nor equal in text."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            for at, (first, second) in enumerate(zip(call.args, call.args[1:], strict=False)):
                starred = any(isinstance(a, ast.Starred) for a in call.args[: at + 2])
                if not starred and ast.dump(first) != ast.dump(second):
                    yield (*_end(call), at), call


def _end(call: ast.Call) -> tuple[int, int]:
    """Where a call ends, which tells calls in one line apart; in `f(a)(b)` both begin at one place."""
    assert call.end_lineno is not None
    assert call.end_col_offset is not None
    return call.end_lineno, call.end_col_offset


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
    return run("swaps", __doc__, Kind(find, LIST, NOTICED, count=100))


if __name__ == "__main__":
    sys.exit(main())
