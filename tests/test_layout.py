"""Where things are in the tests: what several test modules use stands in a module of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def imports_of_test_modules(source: str) -> Iterator[str]:
    """Imports of test modules, also within functions: by `import`, by `from … import …`, and of a module's parts."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if _is_test_module(alias.name))
            case ast.ImportFrom(module=module, names=names):
                modules = [module or "", *(f"{module}.{alias.name}" for alias in names)]
                yield from (name for name in modules if _is_test_module(name))


def _is_test_module(name: str) -> bool:
    path = TESTS.parent.joinpath(*name.split(".")).with_suffix(".py")
    return path.name.startswith("test_") and path.exists()


def test_no_module_imports_a_test_module() -> None:
    """A test module is nobody's library: what it shares goes to `fakes`, `harness`, `conftest` or beside them."""
    wrong = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for name in imports_of_test_modules(path.read_text())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "from tests.test_layout import TESTS",
        "from tests import test_layout",
        "import tests.test_layout",
        "def f():\n    from tests import test_layout as other",
    ],
)
def test_an_import_of_a_test_module_is_noticed(line: str) -> None:
    """The rule above sees every form."""
    assert list(imports_of_test_modules(line)) == ["tests.test_layout"]
