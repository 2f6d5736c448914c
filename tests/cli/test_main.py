"""The command as a whole: help, exit codes, words for faults."""

import subprocess
import sys
from pathlib import Path

import pytest

from router import __version__
from router.cli.exits import Exit, exit_code_of
from router.errors import (
    BusError,
    InvalidInput,
    OutcomeUnknown,
    Problem,
    QuotaExceeded,
    RevisionConflict,
    StartupRefused,
    StoreUnavailable,
)
from tests.cli.conftest import Run

SLOW = ("pydantic", "redis", "nats", "rich.table", "opentelemetry", "prometheus_client", "google.protobuf")


def test_help_imports_nothing_slow() -> None:
    """Building the command line, as the help does, imports none of the slow packages."""
    code = f"import sys; from router.cli.commands import build; build(); print([m for m in {SLOW} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "command", ["local", "serve", "decide", "policy", "audit", "worker", "config", "version", "policy check"]
)
def test_every_command_has_help(run: Run, command: str) -> None:
    """Every command explains itself."""
    done = run(*command.split(), "--help")
    assert (done.code, done.out != "") == (0, True)


def test_version(run: Run) -> None:
    """The version is the package's."""
    assert run("version").out == f"{__version__}\n"


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    """What is no command ends with code 2."""
    assert run("dance").code == Exit.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput([Problem("a", "b")]), Exit.USAGE),
        (StartupRefused("x"), Exit.USAGE),
        (RevisionConflict(3), Exit.NEGATIVE),
        (QuotaExceeded("rules", 3, 2), Exit.NEGATIVE),
        (StoreUnavailable("x"), Exit.UNREACHABLE),
        (OutcomeUnknown("x"), Exit.UNREACHABLE),
        (BusError("x"), Exit.UNREACHABLE),
        (KeyError("x"), Exit.INTERNAL),
    ],
)
def test_every_fault_has_its_exit_code(error: Exception, code: Exit) -> None:
    """The codes are the documented ones."""
    assert exit_code_of(error)[0] is code


def test_all_problems_of_an_input_are_told() -> None:
    """A wrong input is told whole, a problem a line, with the fix."""
    text = exit_code_of(InvalidInput([Problem("a", "is wrong", "say b"), Problem("c", "is missing")]))[1]
    assert text == "error: a: is wrong (say b)\nerror: c: is missing"


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable ends with code 2 and says what was meant."""
    monkeypatch.setenv("ROUTER_LOG_LEVLE", "info")
    done = run("config")
    assert done.code == Exit.USAGE
    assert "ROUTER_LOG_LEVLE" in done.err
    assert "ROUTER_LOG_LEVEL" in done.err


def test_config_shows_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are not in the effective settings."""
    monkeypatch.setenv("ROUTER_ADMIN_TOKEN", "a-very-secret-token")
    done = run("config", "--json")
    assert done.code == Exit.OK
    assert "a-very-secret-token" not in done.out
    assert '"ROUTER_ADMIN_TOKEN":"***"' in done.out


def test_a_damaged_ready_file_says_what_to_do(run: Run, tmp_path: Path) -> None:
    """A ready.json that is none is named, with the fix."""
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local" / "ready.json").write_text("{")
    done = run("policy", "list", "--tenant", "acme")
    assert done.code == Exit.USAGE
    assert ".local/ready.json" in done.err
