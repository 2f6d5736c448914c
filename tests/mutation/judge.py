"""Judges mutants: runs the tests that execute the changed lines, quick ones first, then asks mypy about survivors."""

import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from msgspec import Struct

from tests.log_calls import wrong
from tests.mutation.line_map import LineMap
from tests.mutation.mutant import Fate, Mutant, Verdict
from tests.mutation.workers import Outcome, Tree, Worker, WorkerFailed

LOG_CALLS = "tests/test_log_calls.py"
"""What it says of a changed source is known without a run."""
_FIRST_TESTS = 40
_TIMEOUTS = 3
_KILLED_CODES = frozenset({1, 2})  # a test failed; a test module cannot be imported
_PASSED_CODES = frozenset({0, 5})  # all passed; none is left to run
Told = Callable[[Verdict], None]


class Effort(Struct, frozen=True):
    """Bounds of one mutant's run. `budget_s`: recorded seconds of the tests that are run, the quickest first."""

    workers: int = 2
    budget_s: float = 30
    timeout_s: float = 60


class Judge:
    """Judges mutants of the tree at `root`. `choose` gives the tests of a mutant, in their order, as batches."""

    def __init__(self, root: Path, choose: Callable[[Mutant], list[list[str]]], effort: Effort) -> None:
        self._root = root
        self._choose = choose
        self._effort = effort

    def judge(self, mutants: Sequence[Mutant], say: Told) -> list[Verdict]:
        """The verdicts, in the order of `mutants`; `say` gets each as it comes.

        :raises WorkerFailed: pytest could not be run.
        """
        with tempfile.TemporaryDirectory(prefix="router-mutants-") as folder:
            verdicts = self._by_tests(Path(folder), mutants, say)
            survivors = [v for v in verdicts if not v.noticed]
            refused = {v.mutant for v in self._by_types(Path(folder), survivors, say)}
        return [Verdict(v.mutant, Fate.REFUSED, seconds=v.seconds) if v.mutant in refused else v for v in verdicts]

    def _by_tests(self, folder: Path, mutants: Sequence[Mutant], say: Told) -> list[Verdict]:
        waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in mutants:
            waiting.put(mutant)
        found: dict[Mutant, Verdict] = {}
        faults: list[BaseException] = []

        def work(worker: Worker) -> None:
            try:
                worker.wait_until_ready()
                while not faults:
                    verdict = self._run(worker, waiting.get_nowait())
                    found[verdict.mutant] = verdict
                    say(verdict)
            except queue.Empty:
                return
            except BaseException as e:
                faults.append(e)

        with ExitStack() as stack:
            count = min(self._effort.workers, len(mutants))
            workers = [stack.enter_context(Worker(Tree(self._root, folder / f"tree-{i}"))) for i in range(count)]
            threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if faults:
            raise faults[0]
        return [found[mutant] for mutant in mutants]

    def _run(self, worker: Worker, mutant: Mutant) -> Verdict:
        if next(wrong(mutant.source), None) is not None:
            return Verdict(mutant, Fate.KILLED, LOG_CALLS)
        batches = self._choose(mutant)
        if not batches:
            return Verdict(mutant, Fate.UNCOVERED)
        started = time.monotonic()
        for batch in batches:
            outcome = self._outcome(worker, mutant, batch)
            seconds = time.monotonic() - started
            if outcome.code is None:
                return Verdict(mutant, Fate.TIMED_OUT, f"{len(batch)} tests", seconds)
            if outcome.code in _KILLED_CODES or outcome.code < 0:
                return Verdict(mutant, Fate.KILLED, outcome.failed or f"exit code {outcome.code}", seconds)
            if outcome.code not in _PASSED_CODES:
                raise WorkerFailed(f"pytest ended with {outcome.code} for {mutant.name}:\n{worker.tail()}")
        what = "tests" if any("::" in name for name in batches[-1]) else "test files"
        passed = f"{sum(map(len, batches))} {what} pass"
        return Verdict(mutant, Fate.SURVIVED, passed, time.monotonic() - started)

    def _outcome(self, worker: Worker, mutant: Mutant, tests: list[str]) -> Outcome:
        """A timeout says something of the mutant only if the unchanged sources need far less; else it is made longer.

        :raises WorkerFailed: the unchanged sources do not pass even in the longest time.
        """
        timeout_s = self._effort.timeout_s
        for _ in range(_TIMEOUTS):
            worker.tree.put(mutant)
            outcome = worker.run(tests, timeout_s)
            if outcome.code is not None:
                return outcome
            worker.tree.restore()
            started = time.monotonic()
            passed = worker.run(tests, timeout_s).code in _PASSED_CODES
            if passed and time.monotonic() - started < timeout_s / 3:
                return outcome
            timeout_s *= 2
        raise WorkerFailed(f"the tests for {mutant.name} are too slow on the unchanged sources:\n{worker.tail()}")

    def _by_types(self, folder: Path, survivors: Sequence[Verdict], say: Told) -> Iterator[Verdict]:
        """Those that mypy refuses, in a tree of their own whose mypy cache makes all but the first run quick."""
        if not survivors:
            return
        tree = Tree(self._root, folder / "typed")
        if (fault := _mypy(tree)) is not None:
            raise WorkerFailed(f"mypy refuses the unchanged tree:\n{fault}")
        for verdict in survivors:
            tree.put(verdict.mutant)
            if (fault := _mypy(tree)) is not None:
                refused = Verdict(verdict.mutant, Fate.REFUSED, fault.partition("\n")[0])
                say(refused)
                yield refused


def _mypy(tree: Tree) -> str | None:
    """What mypy says against the package `router`; None: nothing."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "-p", "router"]
    done = subprocess.run(command, cwd=tree.folder, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise WorkerFailed(f"mypy ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout if done.returncode else None


class ByCoverage:
    """Chooses the tests that execute a mutant's lines: those of the same folder first, without servers first."""

    def __init__(self, line_map: LineMap, budget_s: float) -> None:
        self._map = line_map
        self._budget_s = budget_s

    def __call__(self, mutant: Mutant) -> list[list[str]]:
        """A few near tests, then the others, as far as the budget reaches. Empty: nothing covers the lines."""
        nearest = _mirror(mutant.path)

        def order(name: str) -> tuple[bool, int, float]:
            test = self._map.tests[name]
            return test.server, -_shared(nearest, name), test.seconds

        names = sorted(self._map.covering(mutant.path, mutant.lines), key=order)
        chosen: list[str] = []
        left_s = self._budget_s
        for name in names:
            seconds = self._map.tests[name].seconds
            if seconds <= left_s or not chosen:
                chosen.append(name)
                left_s -= seconds
        return [batch for batch in (chosen[:_FIRST_TESTS], chosen[_FIRST_TESTS:]) if batch]


class Given:
    """The same tests for every mutant, as the command line names them."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._tests = list(tests)

    def __call__(self, mutant: Mutant) -> list[list[str]]:
        """The tests."""
        return [self._tests]


def _mirror(path: str) -> tuple[str, ...]:
    """Folder and file name that the tests of a module have: `router/store/keys.py` has `tests/store/test_keys.py`."""
    of = PurePosixPath(path)
    return ("tests", *of.parts[1:-1], f"test_{of.name}")


def _shared(nearest: tuple[str, ...], name: str) -> int:
    parts = PurePosixPath(name.partition("::")[0]).parts
    count = 0
    for a, b in zip(nearest, parts, strict=False):
        if a != b:
            break
        count += 1
    return count
