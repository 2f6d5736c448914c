"""Runs programs under callgrind and reads the counts that they had it write."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.count.client_requests import MACHINES

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / ".tools" / "valgrind"
"""Where `make tools` puts Debian's package."""
HASH_SEED = "0"
_TIMEOUT_S = 900
# The server's functions that are counted, and before which callgrind writes a dump: those of FCALL and of ECHO.
_COUNTED, _DUMPS = "fcallCommand", "echoCommand"
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_TRIGGER = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)

Counts = dict[str, float]
"""load → instructions per decision."""


class CountFailed(Exception):
    """The instructions could not be counted; the message ends with the output of the program."""


class CannotCount(Exception):
    """This machine cannot count instructions; the message says why."""


class ValgrindMissing(CannotCount):
    """There is no valgrind."""


def valgrind() -> tuple[str, dict[str, str]]:
    """The valgrind on PATH, or else the unpacked one; and the environment that it needs.

    :raises CannotCount: there is none, or it does not work here.
    """
    if platform.machine() not in MACHINES:
        raise CannotCount(f"bench.count.client_requests does not know {platform.machine()}")
    binary, env = shutil.which("valgrind"), {}
    # Debian's `valgrind` is a shell script, which finds the binary beside it only when it is installed.
    unpacked = UNPACKED / "bin" / "valgrind.bin"
    if binary is None and unpacked.exists():
        binary, env = str(unpacked), {"VALGRIND_LIB": str(UNPACKED / "libexec" / "valgrind")}
    if binary is None:
        raise ValgrindMissing("there is no valgrind: install it, or run `make tools` where there is apt-get")
    tried = _run([binary, "--tool=callgrind", "--callgrind-out-file=/dev/null", "true"], env)
    if tried.returncode:
        raise CannotCount(f"{binary} does not work here: {tried.stderr[-500:]}")
    return binary, env


def pod(tree: Path, module: str = "bench.count.pod") -> Counts:
    """Count the pod's instructions in a tree, in the loads of a module.

    :raises CannotCount: see `valgrind`.
    :raises CountFailed: the tree's pod did not run.
    """
    binary, env = valgrind()
    with tempfile.TemporaryDirectory(prefix="router-count-") as folder:
        command = [binary, *_callgrind(folder), "--instr-atstart=no", sys.executable, "-m", module]
        decisions = _said(command, tree, env)
        found = {}
        for dump in Path(folder).glob("out.*"):
            text = dump.read_text()
            if trigger := _TRIGGER.search(text):
                found[trigger[1]] = _total(text) / decisions[trigger[1]]
    return _complete(found, decisions)


def script(tree: Path, module: str = "bench.count.script") -> Counts:
    """Count the script's instructions in a tree, in the loads of a module; raises as `pod`."""
    binary, env = valgrind()
    with tempfile.TemporaryDirectory(prefix="router-count-") as folder:
        options = (f"--toggle-collect={_COUNTED}", f"--dump-before={_DUMPS}")
        command = [sys.executable, "-m", module, folder, binary, *_callgrind(folder), *options]
        rows = _said(command, tree, env)
        # Dumps are numbered; every second one is of a load that was counted, the others of its warm-up.
        dumps = sorted(Path(folder).glob("out.*"), key=lambda p: int(p.suffix[1:]))
        totals = [_total(dump.read_text()) for dump in dumps]
    counted = totals[1 : 2 * len(rows) : 2]
    return _complete({n: total / rows[n] for n, total in zip(rows, counted, strict=False) if total}, rows)


def _callgrind(folder: str) -> tuple[str, ...]:
    return "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/out"


def _total(dump: str) -> int:
    total = _TOTALS.search(dump)
    if total is None:
        raise CountFailed("a dump of callgrind has no totals")
    return int(total[1])


def _complete(found: Counts, wanted: dict[str, int]) -> Counts:
    if missing := wanted.keys() - found.keys():
        raise CountFailed(f"callgrind counted nothing for {', '.join(sorted(missing))}")
    return {name: found[name] for name in wanted}


def _said(command: list[str], tree: Path, env: dict[str, str]) -> dict[str, int]:
    done = _run(command, env | {"PYTHONPATH": str(tree), "PYTHONHASHSEED": HASH_SEED}, tree)
    if done.returncode:
        raise CountFailed(f"{tree} could not be counted:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    said: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return said


def _run(command: list[str], env: dict[str, str], cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
