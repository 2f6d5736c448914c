"""A small project with the shape of this one: a package `router`, its tests, and these tools."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.mutation.command import ROOT

_PAY = '''"""Who pays what."""

import time


def receipt(user: str, trace: str, amount: int) -> str:
    """One line."""
    return f"{user} {trace} {amount}"


LINE = receipt("u", "t", 2)


def noticed(user: str, trace: str) -> str:
    """Its test compares the whole answer."""
    return receipt(user, trace, 1)


def unnoticed(user: str, trace: str) -> str:
    """Its test compares the length."""
    return receipt(user, trace, 1)


def untested(user: str, trace: str) -> str:
    """No test calls it."""
    return receipt(user, trace, 1)


def refused(flags: dict[int, bool], at: int, otherwise: bool) -> bool:
    """mypy refuses the swap, because it returns an int; the test does not notice."""
    return flags.get(at, otherwise)


def largest(first: int, second: float) -> float:
    """The order cannot matter."""
    return max(first, second)


def endless(step: int, end: int) -> int:
    """Swapped, it does not end."""
    at = 0
    while at < end:
        at += advance(step, at)
        time.sleep(0)
    return at


def advance(step: int, at: int) -> int:
    """The step."""
    return step
'''
_TESTS = '''"""Its tests."""

from router import pay


def test_noticed() -> None:
    assert pay.noticed("u", "t") == "u t 1"


def test_line() -> None:
    assert pay.LINE == "u t 2"


def test_unnoticed() -> None:
    assert len(pay.unnoticed("u", "t")) == 5


def test_refused() -> None:
    assert pay.refused({1: True}, 1, True)


def test_largest() -> None:
    assert pay.largest(1, 2.0) == 2.0


def test_endless() -> None:
    assert pay.endless(2, 4) == 4
'''
_CONFTEST = """from hypothesis import settings

settings.register_profile("unit")
"""
_SETTINGS = """[tool.pytest.ini_options]
addopts = "--strict-markers -p no:randomly"
timeout = 120
markers = ["long: minutes", "server: needs one"]

[tool.mypy]
strict = true

[tool.mutmut]
source_paths = ["router"]
"""


def write(root: Path) -> Path:
    """Write the project."""
    (root / "router").mkdir(parents=True)
    (root / "router" / "__init__.py").write_text('"""Pays."""\n')
    (root / "router" / "pay.py").write_text(_PAY)
    shutil.copytree(ROOT / "tests" / "mutation", root / "tests" / "mutation", ignore=_lists_and_tests)
    shutil.copy(ROOT / "tests" / "log_calls.py", root / "tests")
    for accepted in ("symmetric.toml", "equivalent.toml"):
        (root / "tests" / "mutation" / accepted).touch()
    (root / "tests" / "__init__.py").touch()
    (root / "tests" / "conftest.py").write_text(_CONFTEST)
    (root / "tests" / "test_pay.py").write_text(_TESTS)
    (root / "pyproject.toml").write_text(_SETTINGS)
    return root


def _lists_and_tests(_folder: str, names: list[str]) -> list[str]:
    return [n for n in names if n.endswith((".toml", ".noticed")) or n.startswith(("test_", "conftest", "__pycache__"))]


def judged(project: Path, tool: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a tool that runs in the project."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"tests.mutation.{tool}", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
