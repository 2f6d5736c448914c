"""Lists of mutants that no test can notice, each with its reason: `symmetric.toml` and `equivalent.toml`.

An entry names the file, the function and the change; `*` stands for any text. No line numbers, so an edit elsewhere
in the file leaves the list valid.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.mutation.mutant import Candidate


class ListRefused(Exception):
    """A list of accepted survivors holds something wrong; the message names every such entry."""


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """Mutants in `path` (`*`: any file), in the function `where`, with the change `what`; all three are patterns."""

    path: str
    what: str
    reason: str
    where: str = "*"

    def matches(self, candidate: Candidate) -> bool:
        """Whether the entry accepts the candidate."""
        pairs = ((self.path, candidate.path), (self.where, candidate.where), (self.what, candidate.what))
        return all(_pattern(pattern).fullmatch(value) for pattern, value in pairs)


class Listed:
    """The entries of one file."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    @classmethod
    def read(cls, path: Path) -> "Listed":
        """Read the file.

        :raises ListRefused: it is not what it should be, or a reason is missing.
        """
        try:
            entries = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, list[Entry]])
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
            raise ListRefused(f"{path.name}: {e}") from e
        found = cls(entries.get("accepted", []))
        without = [entry for entry in found.entries if not entry.reason.strip()]
        if without or entries.keys() - {"accepted"}:
            raise ListRefused(f"{path.name}: [[accepted]] entries with a reason are expected: {without}")
        return found

    def split(self, candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
        """The candidates to judge, and those that are accepted.

        :raises ListRefused: an entry matches no candidate any more.
        """
        to_judge: list[Candidate] = []
        accepted: list[Candidate] = []
        used: set[Entry] = set()
        for candidate in candidates:
            matching = [entry for entry in self.entries if entry.matches(candidate)]
            used.update(matching)
            (accepted if matching else to_judge).append(candidate)
        if stale := [entry for entry in self.entries if entry not in used]:
            raise ListRefused("\n".join(["these entries match nothing any more, so remove them:", *map(str, stale)]))
        return to_judge, accepted


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
