"""Runs the command line: in this process (quick), or as a process of its own (beside a running event loop)."""

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from msgspec import Struct

from router.cli import main
from router.cli.shared.exits import Exit


class Ran(Struct, frozen=True):
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`run("policy", "list", …)` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["router", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Ran(int(end.value.code or 0), out, err)

    return command


async def run_process(*arguments: str, cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ran:
    """The same as a process of its own; `env` is added to its environment."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router", *arguments),
        cwd=cwd,
        env=os.environ | dict(env or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    return Ran(process.returncode or 0, out.decode(), err.decode())


POLICY = (
    '{"version":"1.0","providers":[{"name":"p1","weight":100}],'
    '"fallbacks":[{"when":{"status":["timeout"]},"to":"spare"}]}'
)


@pytest.fixture
def cli(run: Run, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line pointed at the store, in the name of carol; NATS is away."""
    monkeypatch.setenv("ROUTER_REDIS_URL", redis_url)
    monkeypatch.setenv("ROUTER_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("ROUTER_PRINCIPAL", "carol")
    monkeypatch.setattr("router.cli.shared.bus.CONNECT_S", 0.05)
    return run


@pytest.fixture
def tenant(cli: Run) -> str:
    """A tenant with one policy."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    Path("policy.json").write_text(POLICY)
    assert cli("policy", "apply", "policy.json", "--tenant", name).code == Exit.OK
    return name
