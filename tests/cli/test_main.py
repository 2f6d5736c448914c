"""The command as a whole: help, exit codes, words for faults."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from router import __version__
from router.cli.commands import build
from router.cli.shared.exits import Exit, exit_code_of
from router.cli.shared.parties import COMMANDS as PARTIES
from router.errors import (
    BusError,
    InvalidInput,
    NotReplicated,
    OutcomeUnknown,
    Problem,
    QuotaExceeded,
    RevisionConflict,
    StartupRefused,
    StoreForbidden,
    StoreUnavailable,
)
from tests.cli.conftest import Run

SLOW = ("pydantic", "redis", "nats", "rich.table", "opentelemetry", "prometheus_client", "google.protobuf")


def test_help_imports_nothing_slow() -> None:
    """Building the command line, as the help does, imports none of the slow packages."""
    code = f"import sys; from router.cli.commands import build; build(); print([m for m in {SLOW} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(build())))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help(run: Run, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]) -> None:
    """Every command explains itself, every word of it (brackets would be taken for markup, and left out)."""
    monkeypatch.setenv("COLUMNS", "400")
    done = run(*path, "--help")
    assert done.code == Exit.OK
    shown = re.sub(r"[\s│]+", " ", done.out)
    assert (COMMANDS[path].help or "").split("\n")[0] in shown
    for parameter in COMMANDS[path].params:
        assert (parameter.help or "") in shown


def test_every_command_has_its_row_in_the_table_of_parties() -> None:
    """REFERENCE.md and the test of rights are made from it."""
    leaves = {" ".join(path) for path, command in COMMANDS.items() if not hasattr(command, "commands")}
    assert {name.partition(" --")[0] for name in PARTIES} == leaves


def test_version(run: Run) -> None:
    """The version is the package's."""
    assert run("version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    "wrong",
    [
        "dance",
        "decide --tenant acme",
        "policy check nowhere.json",
        "alerts --since yesterday",
        "alerts --severity dire",
        "audit query --tenant acme --resource nothing",
        "decide --tenant \udcff --task chat",
        "local --pods many",
        "dlq redrive",
        "dlq show 0",
        "dlq redrive 18446744073709551616",
    ],
)
def test_wrong_usage_is_told_in_one_line(run: Run, wrong: str) -> None:
    """Code 2, nothing on standard output, and one line that names the help."""
    done = run(*wrong.split())
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert re.fullmatch(r"error: .+ \(see `router.* --help`\)\n", done.err)


@pytest.mark.parametrize(
    "command",
    ["alerts", "dlq list", "usage tail", "decide --tenant acme --task t", "explain --tenant acme --dry-run --task t"],
)
def test_a_nats_that_is_away_is_told_in_one_line(run: Run, command: str) -> None:
    """Code 3 and one line that says how to name another one; no log line before it."""
    done = run(*command.split(), "--nats", "nats://127.0.0.1:1")
    assert (done.code, done.out) == (Exit.UNREACHABLE, "")
    assert re.fullmatch(r"error: nats://127.0.0.1:1: .+ROUTER_NATS_URL.+\)\n", done.err)


def test_a_redis_that_is_away_is_told_in_one_line(run: Run) -> None:
    """Code 3 and one line that says how to name another one."""
    done = run("policy", "list", "--tenant", "acme", "--redis", "redis://127.0.0.1:1")
    assert (done.code, done.out) == (Exit.UNREACHABLE, "")
    assert re.fullmatch(r"error: .+ROUTER_REDIS_URL.+\)\n", done.err)


# Every command that names a tenant, a policy or a provider: what it takes beside the name.
NAMING = (
    "decide --task t --tenant",
    "decide --tenant acme --task t --policy",
    "explain --id 1-0 --tenant",
    "explain --dry-run --task t --tenant",
    "explain --tenant acme --dry-run --task t --policy",
    "policy list --tenant",
    "policy show --tenant",
    "policy show --tenant acme --policy",
    "policy history --tenant",
    "policy rollback --to 1 --tenant",
    "policy rollback --to 1 --tenant acme --policy",
    "policy delete --policy default --tenant",
    "policy delete --tenant acme --policy",
    "provider list --tenant",
    "provider drain p --tenant",
    "provider drain --tenant acme --",
    "provider enable --tenant acme --",
    "breaker list --tenant",
    "breaker force-open --tenant acme --",
    "breaker reset --tenant acme --",
    "tenant show --",
    "tenant disable --",
    "tenant enable --",
    "tenant purge --yes --",
    "idempotency forget --request-id r --tenant",
    "audit query --tenant",
    "audit tail --tenant",
    "audit stats --tenant",
    "audit export --out out --tenant",
    "usage reconcile --tenant",
    "usage tail --tenant",
    "dlq list --tenant",
    "dlq redrive --tenant",
)


@pytest.mark.parametrize("naming", NAMING)
@pytest.mark.parametrize("name", ["a b", "", "n" * 256])
def test_a_name_that_can_be_none_is_wrong_usage(
    run: Run, monkeypatch: pytest.MonkeyPatch, naming: str, name: str
) -> None:
    """Told before any server is asked: there is none here."""
    monkeypatch.setenv("ROUTER_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("ROUTER_REDIS_URL", "redis://127.0.0.1:1")
    done = run(*naming.split(), name)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert re.fullmatch(
        r"error: Invalid value for .+ is not a (tenant|policy|provider) name: 1 to (255|230) of .+\n", done.err
    )


def test_only_what_was_set_is_changed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config --changed` leaves out defaults that depend on the machine, or on another setting."""
    assert run("config", "--changed", "--json").out == "{}\n"
    monkeypatch.setenv("ROUTER_POD_NAME", "pod-7")
    assert run("config", "--changed", "--json").out == '{"ROUTER_POD_NAME":"pod-7"}\n'


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput([Problem("a", message="b")]), Exit.USAGE),
        (StartupRefused("x"), Exit.USAGE),
        (RevisionConflict(3), Exit.NEGATIVE),
        (QuotaExceeded("rules", 3, maximum=2), Exit.NEGATIVE),
        (StoreUnavailable("x"), Exit.UNREACHABLE),
        (OutcomeUnknown("x"), Exit.UNREACHABLE),
        (NotReplicated("x"), Exit.UNREACHABLE),
        (StoreForbidden("x"), Exit.USAGE),
        (BusError("x"), Exit.UNREACHABLE),
        (KeyError("x"), Exit.INTERNAL),
    ],
)
def test_every_fault_has_its_exit_code(error: Exception, code: Exit) -> None:
    """The codes are the documented ones."""
    assert exit_code_of(error)[0] is code


def test_all_problems_of_an_input_are_told() -> None:
    """A wrong input is told whole, a problem a line, with the fix."""
    text = exit_code_of(
        InvalidInput([Problem("a", message="is wrong", hint="say b"), Problem("c", message="is missing")])
    )[1]
    assert text == "error: a: is wrong (say b)\nerror: c: is missing"


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable ends with code 2 and says what was meant."""
    monkeypatch.setenv("ROUTER_LOG_LEVLE", "info")
    done = run("config")
    assert done.code == Exit.USAGE
    assert "ROUTER_LOG_LEVLE" in done.err
    assert "ROUTER_LOG_LEVEL" in done.err


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("policy list --tenant acme --redis redis://:hunter2@127.0.0.1:port", "ROUTER_REDIS_URL"),
        ("alerts --nats nats://127.0.0.1:99999", "ROUTER_NATS_URL"),
        ("gate --pod http://[::1", "--pod"),
        ("gate --pod http://", "--pod"),
        ("gate --pod http://127.0.0.1:99999", "--pod"),
    ],
)
def test_an_address_that_can_be_none_is_wrong_usage(run: Run, command: str, named: str) -> None:
    """Told in one line, without the password that may be in it."""
    done = run(*command.split())
    assert (done.code, done.out, done.err.count("\n")) == (Exit.USAGE, "", 1)
    assert named in done.err
    assert "hunter2" not in done.err


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
