"""pytest plugin that turns a pytest process into a server of test runs: one fork for each job.

The process configures pytest once, imports every library that the tests use (and nothing of `router` or `tests`),
and then waits. A fork costs some milliseconds instead of the second that these imports take, and it sees the
sources as they are at that moment. Jobs and results are lines of JSON on two pipes; `tests.mutation.workers` is the
other end. When that end closes, the run in progress is killed and the process ends.
"""

import importlib
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

JOBS_ENV, RESULTS_ENV = "MUTATION_JOBS_FD", "MUTATION_RESULTS_FD"
_POLL_S = 0.01


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Serve; only a forked child returns, with its arguments in place, and goes on as a usual pytest run."""
    server = _Server(session)
    server.warm_up()
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

    def warm_up(self) -> None:
        """Let a child collect every test, and import here what it had imported, except our own modules."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._session.perform_collect(genitems=True)
            os.write(writer, "\n".join(name for name in list(sys.modules) if not _is_ours(name)).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:
            names = pipe.read().decode().split("\n")
        os.waitpid(child, 0)
        if len(names) < len(sys.modules) // 2:
            raise pytest.UsageError("the tests of the unchanged tree cannot be collected")
        for name in names:
            with suppress(ImportError):  # a module that another one made, not a file: the child makes it again
                importlib.import_module(name)
        if "router" in sys.modules:
            raise pytest.UsageError("router is imported before the fork, so no child would see a mutant")
        _write(self._results, {"ready": True})

    def serve(self) -> None:
        """Until the other end closes; returns in each child."""
        while True:
            job = self._next_job()
            child = os.fork()
            if child == 0:
                os.setpgid(0, 0)
                self._become(job)
                return
            started = time.monotonic()
            code = self._wait(child, job["timeout_s"])
            _write(self._results, {"code": code, "seconds": round(time.monotonic() - started, 3)})

    def _become(self, job: dict[str, Any]) -> None:
        tests: list[str] = job["tests"]
        config = self._session.config
        config.args = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        config.option.maxfail = 1
        config.pluginmanager.register(_Only(tests, self._results), "mutation-only")

    def _next_job(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            part = os.read(self._jobs, 65536)
            if not part:
                _end()
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        job: dict[str, Any] = json.loads(line)
        return job

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
                    _end()
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


def _end() -> NoReturn:
    os._exit(0)


def _write(fd: int, message: dict[str, Any]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")
