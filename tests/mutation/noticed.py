"""Which test noticed a mutant when it was judged last: one line for each, in a file beside the list of accepted ones.

A run tries that test first, so a mutant that is still noticed costs one test instead of several files. A line that has
become wrong costs that one test and no verdict: the other tests run as without it.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tests.mutation.mutant import Fate, Mutant, Verdict

Choose = Callable[[Mutant], list[list[str]]]


class Noticed:
    """The tests by mutant, as the file at `path` has them; no file: none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._tests = dict(line.split(" ", 1) for line in lines)

    def first(self, choose: Choose) -> Choose:
        """Choose that test before those of `choose`."""

        def chosen(mutant: Mutant) -> list[list[str]]:
            test = self._tests.get(_key(mutant.name))
            return [[test], *choose(mutant)] if test is not None else choose(mutant)

        return chosen

    def write(self, verdicts: Sequence[Verdict], *, present: Collection[str]) -> None:
        """Keep what these verdicts say beside what is known. `present`: the names of all mutants that there are."""
        for verdict in verdicts:
            key = _key(verdict.mutant.name)
            if verdict.fate is Fate.KILLED and "::" in verdict.by:
                self._tests[key] = verdict.by
            else:
                self._tests.pop(key, None)
        keys = {_key(name) for name in present}
        kept = sorted((key, test) for key, test in self._tests.items() if key in keys)
        self._path.write_text("".join(f"{key} {test}\n" for key, test in kept), encoding="utf-8")


def _key(name: str) -> str:
    """Class, function and change in short: the line stays right when the file moves."""
    return hashlib.sha256(name.partition(":")[2].encode()).hexdigest()[:12]
