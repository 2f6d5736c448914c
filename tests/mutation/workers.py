"""Runs tests on mutants, each in a copy of the tree, so that an interrupted run leaves the working tree as it was."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from tests.mutation.fork_plugin import JOBS_ENV, NOT_LIVE, RESULTS_ENV
from tests.mutation.live import in_function
from tests.mutation.mutant import Mutant

_NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".tools", ".local", ".hypothesis", ".mutation", ".ruff_cache", ".pytest_cache", "dist")
)
# A later second for each write: Python takes a compiled file for current when second and size agree, and a swap
# leaves the size as it is.
_clock = itertools.count(2_000_000_000)


class WorkerFailed(Exception):
    """A worker's process ended or said something unexpected; the message ends with its output."""


class Tree:
    """A copy of the sources in which one file at a time is changed."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(root, folder, ignore=_NOT_COPIED, symlinks=True)
        self._changed: tuple[Path, str] | None = None
        self.mutant: Mutant | None = None
        """The mutant that the tree holds."""

    def put(self, mutant: Mutant) -> None:
        """Write the mutant in place of what was changed before."""
        self.restore()
        self.mutant = mutant
        path = self.folder / mutant.path
        self._changed = (path, path.read_text(encoding="utf-8"))
        _write(path, mutant.source)

    def restore(self) -> None:
        """Bring the unchanged file back."""
        if self._changed is not None:
            _write(*self._changed)
            self._changed = self.mutant = None

    def can_live(self) -> bool:
        """Whether a process that has imported the unchanged tree may hold the mutant."""
        return self._changed is None or self.mutant is None or in_function(self._changed[1], self.mutant.source)


class Outcome(Struct, frozen=True):
    """How a test run ended. `code` is pytest's exit code, None after the timeout; `failed` names what failed first."""

    code: int | None
    failed: str


class Worker:
    """A pytest process that forks for each run; see `tests.mutation.fork_plugin`."""

    def __init__(self, tree: Tree, tests: tuple[str, ...] = ("tests",)) -> None:
        self.tree = tree
        self._log = tree.folder.with_suffix(".log")
        jobs, writer_of_jobs = os.pipe()
        self._jobs = os.fdopen(writer_of_jobs, "w", encoding="utf-8")
        results, writer = os.pipe()
        self._results = os.fdopen(results, "r", encoding="utf-8")
        env = os.environ | {JOBS_ENV: str(jobs), RESULTS_ENV: str(writer), "PYTHONPATH": str(tree.folder)}
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("-p", "tests.mutation.fork_plugin", "--basetemp", str(tree.folder.with_suffix(".tmp"))),
            *("--hypothesis-seed", "0", "--hypothesis-profile", "unit", "--tb", "short", *tests),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=tree.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(jobs, writer),
            )
        os.close(jobs)
        os.close(writer)

    def wait_until_ready(self) -> None:
        """Wait until the process has imported what it needs.

        :raises WorkerFailed: it ended instead.
        """
        self._next("ready")

    def run(self, tests: list[str], timeout_s: float) -> Outcome:
        """Run these tests in this order until one fails."""
        outcome = self._run(tests, timeout_s, live=True) if self.tree.can_live() else None
        if outcome is None or outcome.code == NOT_LIVE:
            return self._run(tests, timeout_s, live=False)
        return outcome

    def _run(self, tests: list[str], timeout_s: float, *, live: bool) -> Outcome:
        mutant = self.tree.mutant if live else None
        job = {
            "tests": tests,
            "timeout_s": timeout_s,
            "live": live,
            "file": None if mutant is None else str(self.tree.folder / mutant.path),
            "source": None if mutant is None else mutant.source,
        }
        print(json.dumps(job), file=self._jobs, flush=True)
        failed = ""
        while "code" not in (message := self._next("code", "failed")):
            failed = message["failed"]
        return Outcome(message["code"], failed)

    def _next(self, *expected: str) -> dict[str, Any]:
        line = self._results.readline()
        message: dict[str, Any] = json.loads(line) if line else {}
        if not any(key in message for key in expected):
            raise WorkerFailed(f"the worker said {line!r}:\n{self.tail()}")
        return message

    def tail(self) -> str:
        """The end of its output."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.close()  # the process ends, and kills the run in progress
        self._process.wait()
        self._results.close()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    second = next(_clock)
    os.utime(path, (second, second))
