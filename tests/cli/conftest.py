"""Runs the command line: in this process (quick), or as a process of its own (beside a running event loop)."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from router.cli import main


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


async def run_process(*arguments: str, cwd: Path, stdin: bytes = b"") -> Ran:
    """The same as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router", *arguments),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    return Ran(process.returncode or 0, out.decode(), err.decode())
