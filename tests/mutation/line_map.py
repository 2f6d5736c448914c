"""Which tests execute a line of `router/`, and how long each takes: recorded once for a state of the sources.

A record lies in `.mutation/` under a hash of what it depends on, so a changed source or test asks for a new one.
"""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import msgspec
from coverage import CoverageData
from msgspec import Struct

from tests.mutation.coverage_plugin import CHILD, IMPORT, LINES, RECORD_ENV, TESTS

CACHE = ".mutation"
# Tests of the tools, of files that no mutant touches, and whole deployments: they judge no line of `router/`.
LEFT_OUT = ("tests/mutation", "tests/chart", "tests/e2e", "tests/bench", "tests/chaos")
_HASHED = ("router/**/*.py", "lua/**/*.lua", "examples/**/*", "tests/**/*.py", "pyproject.toml")


class RecordFailed(Exception):
    """No usable record could be made or read; the message says why."""


class Test(Struct, frozen=True):
    """One test: what it costs, and whether it passed on the unchanged sources."""

    passed: bool
    server: bool
    seconds: float = 0


class LineMap:
    """The tests of each line. Paths are relative to the root, such as `router/domain/decide/plan.py`."""

    def __init__(self, root: Path, tests: dict[str, Test], data: CoverageData) -> None:
        self.tests = tests
        self._root = root
        self._data = data
        self._by_file: dict[str, list[str]] = defaultdict(list)
        for name, test in tests.items():
            if test.passed:
                self._by_file[name.partition("::")[0]].append(name)
        self._lines: dict[str, dict[int, list[str]]] = {}

    @classmethod
    def read(cls, root: Path, folder: Path) -> Self:
        """Read the record in `folder`.

        :raises RecordFailed: there is none.
        """
        tests: dict[str, Test] = {}
        for part in sorted(folder.glob(f"{TESTS}-*.json")):
            tests |= msgspec.json.decode(part.read_bytes(), type=dict[str, Test])
        if not tests:
            raise RecordFailed(f"{folder} holds no record of tests: remove it and run again")
        merged = folder / "merged"
        if not merged.exists():
            _merge(sorted(folder.glob(f"{LINES}.*")), merged)
        data = CoverageData(basename=str(merged))
        data.read()
        return cls(root, tests, data)

    def covering(self, path: str, lines: Iterable[int]) -> set[str]:
        """The passing tests that execute one of `lines`.

        Lines that run at import belong to no test. For them stand the tests that execute any other line of the file,
        import it, or execute a module that imports it.
        """
        by_line = self._of(path)
        contexts = {context for line in lines for context in by_line.get(line, ())}
        found = self._named(contexts)
        only_at_import = all(not context or context.startswith(IMPORT) for context in contexts)
        return found | self._executing(path) | self._importing(path) if only_at_import else found

    def _executing(self, path: str) -> set[str]:
        return self._named(context for contexts in self._of(path).values() for context in contexts)

    def _importing(self, path: str) -> set[str]:
        module = module_name(path)
        found: set[str] = set()
        for importer in self._importers[module]:
            found |= set(self._by_file.get(importer, ())) | self._executing(importer)
        return found

    @cached_property
    def _importers(self) -> dict[str, list[str]]:
        return importers(self._root)

    def _of(self, path: str) -> dict[int, list[str]]:
        if path not in self._lines:
            self._lines[path] = self._data.contexts_by_lineno(str(self._root / path))
        return self._lines[path]

    def _named(self, contexts: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for context in set(contexts):
            if context.startswith((CHILD, IMPORT)):
                found.update(self._by_file[context.partition(":")[2]])
            elif (test := self.tests.get(context)) is not None and test.passed:
                found.add(context)
        return found


def importers(root: Path) -> dict[str, list[str]]:
    """Module → the files of `router/` and `tests/` that import it, or a name of it."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in ("router", "tests"):
        for file in sorted((root / folder).rglob("*.py")):
            name = file.relative_to(root).as_posix()
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    for module in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                        found[module].append(name)
                elif isinstance(node, ast.Import):
                    for alias in node.names:
                        found[alias.name].append(name)
    return found


def module_name(path: str) -> str:
    """The dotted name of a file of the tree, such as `router.domain.decide.plan`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def recorded(root: Path, paths: Sequence[str] = ("tests",)) -> LineMap:
    """The record of `paths` (pytest arguments) for the present sources; made first if there is none.

    :raises RecordFailed: pytest did not run.
    """
    folder = root / CACHE / _key(root, paths)
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _record(root, folder, paths)
        complete.touch()
    return LineMap.read(root, folder)


def _record(root: Path, folder: Path, paths: Sequence[str]) -> None:
    print(f"recording which tests execute which line: {' '.join(paths)}", flush=True)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"),
        *("-p", "tests.mutation.coverage_plugin", "-m", "not long", *(f"--ignore={path}" for path in LEFT_OUT)),
    ]
    env = os.environ | {RECORD_ENV: str(folder), "PYTHONPATH": str(root)}
    folder.mkdir(parents=True)
    log = folder / "pytest.log"
    with log.open("wb") as out:
        code = subprocess.run([*command, *paths], cwd=root, env=env, stdout=out, stderr=out, check=False).returncode
    # Failed tests are left out and named below; a worker that died or a bad argument leaves no record to trust.
    if code not in (0, 1):
        raise RecordFailed(f"pytest ended with {code}:\n{log.read_text(errors='replace')[-3000:]}")
    failed = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))]
    if failed:
        print(f"{len(failed)} tests fail on the unchanged sources and judge nothing:", *failed, sep="\n  ")


def _merge(parts: Sequence[Path], into: Path) -> None:
    data = CoverageData(basename=str(into) + ".part")
    for part in parts:
        other = CoverageData(basename=str(part))
        other.read()
        data.update(other)
    data.write()
    Path(data.data_filename()).rename(into)


def _key(root: Path, paths: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([sys.version, *paths]).encode())
    for pattern in _HASHED:
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not name.startswith(LEFT_OUT):
                digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
