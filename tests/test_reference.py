"""docs/ says what the code says."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

GENERATOR = Path(__file__).parents[1] / "docs" / "generate.py"


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> dict[Path, str]:
    """Every generated file, as the code has it now."""
    monkeypatch.syspath_prepend(str(GENERATOR.parent))
    spec = spec_from_file_location("generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    files: dict[Path, str] = module.files()
    return files


@pytest.mark.parametrize("name", ["REFERENCE.md", "policy.schema.json"])
def test_the_generated_files_are_up_to_date(name: str, generated: dict[Path, str]) -> None:
    """`make docs` would change nothing."""
    path = GENERATOR.parent / name
    assert path.read_text() == generated[path]
