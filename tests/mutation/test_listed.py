"""The lists of accepted survivors."""

from pathlib import Path

import pytest

from tests.mutation.listed import Listed, ListRefused
from tests.mutation.mutant import Candidate

MAX = Candidate("router/a.py", "best", "max(… a ⇄ b …)", str)
PAY = Candidate("router/b.py", "pay", "receipt(… user ⇄ trace …)", str)


def listed(folder: Path, text: str) -> Listed:
    """A list of this text."""
    path = folder / "some.toml"
    path.write_text(text)
    return Listed.read(path)


def test_an_entry_accepts_what_its_patterns_match(tmp_path: Path) -> None:
    """`*` stands for any text, so one entry covers a function whose order never matters."""
    found = listed(tmp_path, '[[accepted]]\npath = "*"\nwhat = "max(*)"\nreason = "max has no order"\n')
    assert found.split([MAX, PAY]) == ([PAY], [MAX])


def test_an_entry_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    """A list holds no more than the sources need."""
    found = listed(tmp_path, '[[accepted]]\npath = "router/gone.py"\nwhat = "max(*)"\nreason = "it was there"\n')
    with pytest.raises(ListRefused, match=r"router/gone\.py"):
        found.split([MAX, PAY])


@pytest.mark.parametrize(
    "text",
    [
        '[[accepted]]\npath = "*"\nwhat = "max(*)"\n',
        '[[accepted]]\npath = "*"\nwhat = "max(*)"\nreason = " "\n',
        '[[accepted]]\npath = "*"\nwhat = "max(*)"\nreason = "r"\nline = 3\n',
        '[[symmetric]]\npath = "*"\nwhat = "max(*)"\nreason = "r"\n',
        "[[accepted]",
    ],
    ids=["no reason", "empty reason", "unknown field", "unknown table", "not TOML"],
)
def test_a_list_says_what_is_wrong_with_it(tmp_path: Path, text: str) -> None:
    """Each entry has a reason and no field that nobody reads."""
    with pytest.raises(ListRefused, match=r"some\.toml"):
        listed(tmp_path, text)
