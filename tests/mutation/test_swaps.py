"""Swapped arguments: found by type, judged by the tests that cover them, accepted only by a list."""

from pathlib import Path

from tests.mutation.sample import judged
from tests.mutation.swaps import LIST, find


def test_every_pair_of_one_type_is_swapped(project: Path) -> None:
    """Neighbours of one type, also int beside float; not str beside int. The rest of the file stays byte for byte."""
    swaps = find(project)
    assert [(s.where, s.what) for s in swaps] == [
        ("", "receipt(… 'u' ⇄ 't' …)"),
        ("noticed", "receipt(… user ⇄ trace …)"),
        ("unnoticed", "receipt(… user ⇄ trace …)"),
        ("untested", "receipt(… user ⇄ trace …)"),
        ("refused", "flags.get(… at ⇄ otherwise …)"),
        ("largest", "max(… first ⇄ second …)"),
        ("endless", "advance(… step ⇄ at …)"),
    ]
    before = (project / "router" / "pay.py").read_text()
    assert swaps[1].change() == before.replace("receipt(user, trace, 1)", "receipt(trace, user, 1)", 1)


def test_a_run_names_what_no_test_notices(project: Path) -> None:
    """One swap per fate; what survives or is not executed fails the run, and the working tree stays as it is."""
    before = (project / "router" / "pay.py").read_text()
    code, said = judged(project, "swaps", "--all", "--verbose", "--timeout", "15")
    assert code == 1, said
    assert "a test fails: router/pay.py:noticed: receipt(… user ⇄ trace …)  [tests/test_pay.py::test_noticed]" in said
    assert "a test fails: router/pay.py:: receipt(… 'u' ⇄ 't' …)  [tests/test_pay.py::test_line]" in said
    assert "the tests do not end in time: router/pay.py:endless" in said
    assert "mypy refuses it: router/pay.py:refused" in said
    assert "\nrouter/pay.py:unnoticed: receipt(… user ⇄ trace …)\nno test fails: 1 tests pass\n" in said
    assert "\nrouter/pay.py:untested: receipt(… user ⇄ trace …)\nno test" in said
    assert "-    return receipt(user, trace, 1)\n+    return receipt(trace, user, 1)" in said
    assert "4 of 7 noticed (57.1 %)" in said
    assert (project / "router" / "pay.py").read_text() == before


def test_a_listed_swap_is_not_judged(project: Path) -> None:
    """What the list accepts is counted and left out."""
    entry = '[[accepted]]\npath = "router/pay.py"\nwhere = "{}"\nwhat = "{}(*)"\nreason = "the sample says so"\n'
    listed = (("un*ed", "receipt"), ("largest", "max"))
    (project / "tests" / "mutation" / LIST.name).write_text("\n".join(entry.format(*names) for names in listed))
    code, said = judged(project, "swaps", "--all", "--list")
    assert code == 0, said
    assert "7 found, 3 of them listed in symmetric.toml" in said
    assert "un" not in said.partition("\n")[2]
