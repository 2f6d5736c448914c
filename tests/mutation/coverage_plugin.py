"""pytest plugin that records which tests execute which line of `router/`: `-p tests.mutation.coverage_plugin`.

It writes into the folder that `MUTATION_RECORD` names: coverage data, and one JSON file of tests for each process.
`tests.mutation.line_map` reads them. Under xdist each worker records for itself; the controller runs no test.
A child process that a test starts (a pod, a command) records for the test's whole file, because a pod often serves
several tests. A child that is killed by SIGKILL records nothing. What a test file executes while it is imported is
recorded for the whole file, too.
"""

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

RECORD_ENV = "MUTATION_RECORD"
LINES, TESTS, CHILD, IMPORT = "lines", "tests", "child:", "import:"
# The package coverage starts measuring in any Python process whose environment has this variable.
_CHILD_ENV, _CONTEXT_ENV = "COVERAGE_PROCESS_START", "MUTATION_CHILD_CONTEXT"
_CHILD_SETTINGS = """[run]
data_file = {data_file}
parallel = true
sigterm = true
source = router
context = ${{{context}}}
disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse
"""


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start before the first conftest imports `router`, so that module-level lines are recorded, too."""
    folder = os.environ.get(RECORD_ENV)
    if folder is None:
        raise pytest.UsageError(f"{__name__} needs the folder to write to in {RECORD_ENV}")
    early_config.pluginmanager.register(_Recorder(Path(folder).absolute()), "mutation-recorder")


class _Recorder:
    """One process's recording."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._tests: dict[str, dict[str, object]] = {}
        self._tests_file = folder / f"{TESTS}-{os.getpid()}.json"
        self._child_settings = folder / f"child-{os.getpid()}.ini"
        self._child_settings.write_text(
            _CHILD_SETTINGS.format(data_file=folder / LINES, context=_CONTEXT_ENV), encoding="utf-8"
        )
        self._coverage = coverage.Coverage(
            data_file=str(folder / LINES), data_suffix=f"own-{os.getpid()}", config_file=False, source=["router"]
        )
        self._coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, object, object]:
        """Book what the import of a test file executes to the whole file."""
        if isinstance(collector, pytest.Module):
            self._coverage.switch_context(IMPORT + collector.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Book every line from here to the end of the teardown to this test."""
        started = time.monotonic()
        os.environ[_CHILD_ENV] = str(self._child_settings)
        os.environ[_CONTEXT_ENV] = CHILD + item.nodeid.partition("::")[0]
        self._coverage.switch_context(item.nodeid)
        entry = self._tests[item.nodeid] = {"passed": True, "server": item.get_closest_marker("server") is not None}
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")
            entry["seconds"] = round(time.monotonic() - started, 4)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what failed or was skipped: such a test cannot judge a mutant."""
        if not report.passed and report.nodeid in self._tests:
            self._tests[report.nodeid]["passed"] = False

    def pytest_sessionfinish(self) -> None:
        """Write both files."""
        self._coverage.stop()
        if self._tests:
            self._coverage.save()
            self._tests_file.write_text(json.dumps(self._tests), encoding="utf-8")
