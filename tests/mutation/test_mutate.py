"""mutmut's mutants are judged by the same runner."""

from tests.mutation.command import sample
from tests.mutation.mutant import Candidate
from tests.mutation.mutate import mutants_of

_SOURCE = '''"""A module."""

LIMIT = 3


def may(count: int) -> bool:
    """Below the limit."""
    return count < LIMIT
'''


def test_mutants_have_the_operators_of_mutmut() -> None:
    """Only in functions: a comparison of this source has one mutant, its constant none."""
    (mutant,) = mutants_of("router/limit.py", _SOURCE)
    assert (mutant.where, mutant.what) == ("may", "< LIMIT → <= LIMIT")
    assert mutant.change() == _SOURCE.replace("<", "<=")
    assert mutant.mutant(_SOURCE).lines == (8,)


def test_a_seed_chooses_the_same_sample() -> None:
    """So a run can be repeated after its survivors have got tests; a list that is short is judged whole.

    Another candidate replaces at most one, and a file that moves none: what was judged stays judged while others
    change other files.
    """
    candidates = [Candidate("router/a.py", "f", f"{i} → {i + 1}", str) for i in range(50)]
    chosen = sample(candidates, 5, 1)
    assert len(set(chosen)) == 5
    assert chosen == sample(candidates[::-1], 5, 1)
    assert chosen != sample(candidates, 5, 2)
    more = [*candidates, *(Candidate("router/b.py", "g", f"{i}", str) for i in range(3))]
    assert len(set(chosen) - set(sample(more, 5, 1))) <= 3
    moved = [Candidate("router/room/a.py", c.where, c.what, str) for c in candidates]
    assert [c.what for c in sample(moved, 5, 1)] == [c.what for c in chosen]
    assert sorted(sample(candidates, 99, 1), key=candidates.index) == candidates
