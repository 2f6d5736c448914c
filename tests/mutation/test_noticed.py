"""The test that noticed a mutant before is tried first."""

from pathlib import Path

import pytest

from tests.mutation.mutant import Fate, Mutant, Verdict
from tests.mutation.noticed import Noticed

NEAR = [["tests/test_near.py"]]
PAY = Mutant("router/pay.py", "router/pay.py:pay: receipt(… user ⇄ trace …)", (1,), "")


def near(_mutant: Mutant) -> list[list[str]]:
    """What is chosen without a note."""
    return NEAR


def noted(folder: Path, *verdicts: Verdict, present: tuple[str, ...] = (PAY.name,)) -> Noticed:
    """As a run after one with these verdicts reads it."""
    path = folder / "swaps.noticed"
    Noticed(path).write(verdicts, present=present)
    return Noticed(path)


def test_the_noted_test_comes_first(tmp_path: Path) -> None:
    """The others follow, because it may pass today; also after the file has moved."""
    found = noted(tmp_path, Verdict(PAY, Fate.KILLED, "tests/test_pay.py::test_pay[a b]"))
    moved = Mutant("router/room/pay.py", PAY.name.replace("router/", "router/room/"), (1,), "")
    expected = [["tests/test_pay.py::test_pay[a b]"], *NEAR]
    assert [found.first(near)(m) for m in (PAY, moved)] == [expected, expected]


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(PAY, Fate.SURVIVED, "3 test files pass"),
        Verdict(PAY, Fate.REFUSED, "router/pay.py:1: error"),
        Verdict(PAY, Fate.TIMED_OUT, "2 tests"),
        Verdict(PAY, Fate.KILLED, "tests/test_log_calls.py"),
        Verdict(PAY, Fate.KILLED, "exit code -11"),
    ],
)
def test_only_a_test_that_failed_is_noted(tmp_path: Path, verdict: Verdict) -> None:
    """A later verdict replaces the note."""
    noted(tmp_path, Verdict(PAY, Fate.KILLED, "tests/test_pay.py::test_pay"))
    assert noted(tmp_path, verdict).first(near)(PAY) == NEAR


def test_a_note_lasts_as_long_as_its_mutant(tmp_path: Path) -> None:
    """A run that judges others keeps it; once the call is gone, so is the line."""
    noted(tmp_path, Verdict(PAY, Fate.KILLED, "tests/test_pay.py::test_pay"))
    other = Verdict(Mutant("router/a.py", "router/a.py:f: g(… a ⇄ b …)", (1,), ""), Fate.KILLED, "tests/test_a.py::t")
    assert noted(tmp_path, other, present=(PAY.name, other.mutant.name)).first(near)(PAY) != NEAR
    assert noted(tmp_path, present=(other.mutant.name,)).first(near)(PAY) == NEAR
