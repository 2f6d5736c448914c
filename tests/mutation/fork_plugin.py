"""pytest plugin that turns a pytest process into a server of test runs: one fork for each job.

There are two such processes. The live one has imported `router`, and imports test files as jobs name them. Its forks
change the functions of the mutant in place (`tests.mutation.live`), so a run costs no import at all. The fresh one
has imported the libraries that the live one uses, and nothing of `router` or `tests`: its forks see the sources as
they are at that moment. It takes the mutants that a live process cannot hold. Jobs and results are lines of JSON on
two pipes; `tests.mutation.workers` is the other end. When that end closes, the run in progress is killed and both
processes end.
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.mutation.live import Ran

JOBS_ENV, RESULTS_ENV = "MUTATION_JOBS_FD", "MUTATION_RESULTS_FD"
NOT_LIVE = 77
"""Exit code of a run whose mutant a live process cannot hold."""
_POLL_S = 0.01


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Serve; only a forked child returns, with its arguments in place, and goes on as a usual pytest run."""
    server = _Server(session)
    server.start()
    server.serve()


class _Only:
    """In a child: keeps the chosen tests or whole test files in the chosen order, and reports the first that fails."""

    def __init__(self, chosen: list[str], results: int) -> None:
        self._place = {name: at for at, name in enumerate(chosen)}
        self._results = results
        self._reported = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the others and long tests. A name that is gone (a mutant may rename a parameter) is not missed."""
        chosen = {item: place for item in items if (place := self._place_of(item)) is not None}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = sorted(chosen, key=lambda item: chosen[item])

    def _place_of(self, item: pytest.Item) -> int | None:
        if item.get_closest_marker("long") is not None:
            return None
        return self._place.get(item.nodeid, self._place.get(item.nodeid.partition("::")[0]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Name the first failure."""
        self._report(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Name a file that cannot be imported any more."""
        self._report(report)

    def _report(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self._reported:
            self._reported = True
            _write(self._results, {"failed": report.nodeid})


class _Server:
    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._jobs = int(os.environ.pop(JOBS_ENV))
        self._results = int(os.environ.pop(RESULTS_ENV))
        self._buffer = b""
        self._ran = Ran()
        self._live: tuple[int, int] | None = None
        """In the fresh process: pid and job pipe of the live one."""
        self._libraries: list[str] = []

    def start(self) -> None:
        """Fork the live process; it tells what it has imported."""
        jobs, live_jobs = os.pipe()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(live_jobs)
            os.close(reader)
            self._jobs = jobs
            with self._ran.watching():
                _import_package("router")
            os.write(writer, "\n".join(name for name in list(sys.modules) if not _is_ours(name)).encode())
            os.close(writer)
            return
        os.close(jobs)
        os.close(writer)
        self._live = child, live_jobs
        with open(reader, "rb") as pipe:
            self._libraries = pipe.read().decode().split("\n")
        if len(self._libraries) < len(sys.modules) // 2:
            raise pytest.UsageError("the unchanged tree cannot be imported")
        _write(self._results, {"ready": True})

    def serve(self) -> None:
        """Until the other end closes; returns in each child."""
        while True:
            job = self._next_job()
            if self._live is not None and job["live"]:
                _write(self._live[1], job)
                continue
            self._import_for(job)
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                self._become(job)
                return
            started = time.monotonic()
            code = self._wait(child, job["timeout_s"])
            _write(self._results, {"code": code, "seconds": round(time.monotonic() - started, 3)})

    def _import_for(self, job: dict[str, Any]) -> None:
        """In the live process, the test files; in the fresh one, once, the libraries."""
        if self._live is None:
            with self._ran.watching():
                for file in dict.fromkeys(name.partition("::")[0] for name in job["tests"]):
                    with suppress(Exception, pytest.skip.Exception):  # the child says what is wrong with it
                        importlib.import_module(file.removesuffix(".py").replace("/", "."))
            return
        for name in self._libraries:
            with suppress(ImportError):  # a module that another one made, not a file: the child makes it again
                importlib.import_module(name)
        self._libraries = []
        if "router" in sys.modules:
            raise pytest.UsageError("router is imported before the fork, so no child would see a mutant")

    def _become(self, job: dict[str, Any]) -> None:
        if self._live is None and job["file"] is not None and not self._ran.put(job["file"], job["source"]):
            os._exit(NOT_LIVE)
        tests: list[str] = job["tests"]
        config = self._session.config
        config.args = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        config.option.maxfail = 1
        config.pluginmanager.register(_Only(tests, self._results), "mutation-only")

    def _next_job(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            part = os.read(self._jobs, 65536)
            if not part:
                self._end()
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        job: dict[str, Any] = json.loads(line)
        return job

    def _end(self) -> NoReturn:
        if self._live is not None:
            os.close(self._live[1])
            os.waitpid(self._live[0], 0)
        os._exit(0)

    def _wait(self, child: int, timeout_s: float) -> int | None:
        """The exit code; None: not within the time. Servers and pods that the child left are killed with it."""
        with suppress(ProcessLookupError, PermissionError):  # the child may have done it, and even have ended
            os.setpgid(child, child)
        give_up = time.monotonic() + timeout_s
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            orphaned = select.select([self._jobs], [], [], _POLL_S)[0]
            if orphaned or time.monotonic() > give_up:
                _kill_group(child)
                os.waitpid(child, 0)
                if orphaned:
                    self._end()
                return None
        _kill_group(child)
        return os.waitstatus_to_exitcode(ended[1])


def _is_ours(name: str) -> bool:
    """Whether the module comes from the tree, as `router`, `tests` and `bench` do, and so may hold a mutant."""
    file = getattr(sys.modules[name], "__file__", None)
    return name in ("__main__", "__mp_main__") or (file is not None and Path(file).is_relative_to(Path.cwd()))


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(leader, signal.SIGKILL)


def _import_package(name: str) -> None:
    """The package and every module below it but its commands."""
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)


def _write(fd: int, message: dict[str, Any]) -> None:
    with open(fd, "wb", closefd=False) as pipe:
        pipe.write(json.dumps(message).encode() + b"\n")
