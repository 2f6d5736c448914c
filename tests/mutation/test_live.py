"""A process that has imported the sources takes a mutant only where it then behaves as the changed source does."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutation.live import Ran, in_function

_SOURCE = '''"""A module."""


def minus(a, b):
    return a - b


class Account:
    def left(self, used, limit):
        return minus(limit, used)

    def later(self, used, limit):
        return lambda: minus(limit, used)


def made(a, b):
    return minus(a, b)


def two():
    return (lambda a, b: minus(a, b)), (lambda a, b: minus(b, a))


PAIR = two()
TABLE = made(3, 1)
'''


def _loaded(folder: Path, ran: Ran) -> tuple[ModuleType, str]:
    file = folder / "account.py"
    file.write_text(_SOURCE)
    spec = importlib.util.spec_from_file_location("account", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with ran.watching():
        spec.loader.exec_module(module)
    return module, str(file)


def _swapped(what: str, by: str) -> str:
    assert what in _SOURCE
    return _SOURCE.replace(what, by)


def test_functions_and_methods_change_in_place(tmp_path: Path) -> None:
    """Also for who holds the function already; what is made inside one follows."""
    ran = Ran()
    module, file = _loaded(tmp_path, ran)
    account = module.Account()
    left = account.left
    assert left(1, 5) == account.later(1, 5)() == 4
    assert ran.put(file, _swapped("minus(limit, used)", "minus(used, limit)"))
    assert left(1, 5) == account.later(1, 5)() == -4


@pytest.mark.parametrize(
    ("what", "by"),
    [
        ("def made(a, b):\n    return minus(a, b)", "def made(a, b):\n    return minus(b, a)"),
        ("return a - b", "return b - a"),
        ("lambda a, b: minus(a, b)", "lambda a, b: minus(b, a)"),
        ("TABLE = made(3, 1)", "TABLE = made(1, 3)"),
    ],
    ids=["made a table", "was called by it", "one of two in a line", "no function"],
)
def test_what_ran_at_import_takes_a_fresh_process(tmp_path: Path, what: str, by: str) -> None:
    """Its result is in the module for good, so its functions stay as they are."""
    ran = Ran()
    _, file = _loaded(tmp_path, ran)
    assert not ran.put(file, _swapped(what, by))


@pytest.mark.parametrize(
    ("what", "by", "inside"),
    [
        ("minus(limit, used)", "minus(used, limit)", True),
        ("return a - b", "return b - a", True),
        ("(self, used, limit)", "(self, limit, used)", False),
        ("def made(a, b)", "def made(a, b=1)", False),
        ("made(3, 1)", "made(1, 3)", False),
        ("class Account:", "class Account(dict):", False),
    ],
)
def test_only_bodies_of_functions_are_inside(what: str, by: str, inside: bool) -> None:
    """Signatures, bases and module level are not."""
    assert in_function(_SOURCE, _swapped(what, by)) is inside
