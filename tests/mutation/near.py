"""Chooses the tests near a mutant by name and import, without a record of coverage.

Nearest first: the test file that mirrors the module, the test files that import it, those that import a module which
imports it. A mutant that a near test notices costs seconds. One that only a distant test notices costs all the near
ones first, so give it a near test.
"""

from functools import cached_property
from pathlib import Path

from tests.mutation.line_map import LEFT_OUT, importers, module_name
from tests.mutation.mutant import Mutant

_FIRST = 3
_IMPORTERS = 12
_DISTANT = 12


class Near:
    """Whole test files for each mutant, as batches; empty: no test file is near."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, mutant: Mutant) -> list[list[str]]:
        """The mirror and the importers, then files one import further away."""
        direct = self._importers[module_name(mutant.path)]
        tests = self._ordered(mutant.path, set(direct))[:_IMPORTERS]
        through = {far for name in direct if name.startswith("router/") for far in self._importers[module_name(name)]}
        distant = [name for name in self._ordered(mutant.path, through) if name not in tests][:_DISTANT]
        mirror = self._mirrors(mutant.path)
        near = [*mirror, *(name for name in tests if name not in mirror)]
        chosen = [batch for batch in (near[:_FIRST], near[_FIRST:], distant) if batch]
        return chosen or self._of_the_room(mutant.path)

    def _of_the_room(self, path: str) -> list[list[str]]:
        """The test files of the nearest mirrored folder: a command imports its modules in functions."""
        for room in Path(path).relative_to("router").parents[:-1]:
            if found := sorted((self._root / "tests" / room).glob("test_*.py")):
                return [[test.relative_to(self._root).as_posix() for test in found]]
        return []

    def _mirrors(self, path: str) -> list[str]:
        """Those with the module's name, and those with the names of its rooms: `tests/test_telemetry.py`."""
        module = Path(path.removesuffix("/__init__.py").removesuffix(".py")).relative_to("router")
        own = (self._root / "tests" / module.parent).glob(f"test_{module.name}*.py")
        rooms = (self._root / "tests" / room.parent / f"test_{room.name}.py" for room in module.parents if room.name)
        found = [*sorted(own), *(test for test in rooms if test.exists())]
        return [test.relative_to(self._root).as_posix() for test in found]

    def _ordered(self, path: str, names: set[str]) -> list[str]:
        """The test files among `names`; those in the mirrored folder first, whole fleets last."""
        parts = ("tests", *Path(path).parts[1:])

        def order(name: str) -> tuple[bool, int, str]:
            shared = 0
            for a, b in zip(parts, Path(name).parts, strict=False):
                if a != b:
                    break
                shared += 1
            return name.startswith("tests/fleet/"), -shared, name

        files = (n for n in names if n.startswith("tests/") and Path(n).name.startswith("test_"))
        return sorted((n for n in files if not n.startswith(LEFT_OUT)), key=order)

    @cached_property
    def _importers(self) -> dict[str, list[str]]:
        return importers(self._root)
