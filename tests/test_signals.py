"""Children of the tests start with default signals, however the tests were started."""

import subprocess
import sys
from pathlib import Path

DISPOSITION = "import signal; print(int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN))"


def test_a_child_does_not_ignore_the_interrupt() -> None:
    """A child that the tests start ends on SIGINT."""
    child = subprocess.run([sys.executable, "-c", DISPOSITION], capture_output=True, check=True)
    assert child.stdout == b"0\n"


def test_tests_in_the_background_start_children_with_default_signals() -> None:
    """A shell ignores SIGINT in what it starts with `&`; the children of the tests do not inherit that."""
    one = f"{__file__}::{test_a_child_does_not_ignore_the_interrupt.__name__}"
    tests = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one)
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", *tests)
    ran = subprocess.run(background, cwd=Path(__file__).parents[1], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout.decode()
