"""Tests near a mutant are found by name and import."""

from pathlib import Path

import pytest

from tests.mutation.command import ROOT
from tests.mutation.mutant import Mutant
from tests.mutation.near import Near
from tests.mutation.sample import judged


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("router/domain/decide/figures.py", "tests/domain/decide/test_figures.py"),
        ("router/store/keys.py", "tests/store/test_keys.py"),
        ("router/telemetry/metrics/decisions.py", "tests/test_telemetry.py"),
        ("router/tracing.py", "tests/test_tracing.py"),
    ],
)
def test_the_mirror_comes_first(path: str, first: str) -> None:
    """By the module's name, or by that of its room."""
    assert Near(ROOT)(Mutant(path, "m", (1,), ""))[0][0] == first


def test_importers_come_before_their_importers(tmp_path: Path) -> None:
    """Files of tests only, none twice; a module that nothing imports has those of its room."""
    files = {
        "router/a/b.py": "",
        "router/a/c.py": "from router.a import b",
        "router/a/lonely.py": "",
        "tests/a/test_b.py": "from router.a.b import x",
        "tests/other/test_x.py": "import router.a.b",
        "tests/a/test_c.py": "from router.a.c import y",
        "tests/a/fakes.py": "from router.a.b import x",
        "tests/fleet/test_f.py": "from router.a import b",
        "tests/chart/test_charts.py": "from router.a import b",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    near = Near(tmp_path)
    direct = ["tests/a/test_b.py", "tests/other/test_x.py", "tests/fleet/test_f.py"]
    assert near(Mutant("router/a/b.py", "m", (1,), "")) == [direct, ["tests/a/test_c.py"]]
    assert near(Mutant("router/a/lonely.py", "m", (1,), "")) == [["tests/a/test_b.py", "tests/a/test_c.py"]]
    assert near(Mutant("router/far/away.py", "m", (1,), "")) == []


def test_near_tests_judge_without_a_record(project: Path) -> None:
    """Whole files run; the same verdicts as with a record, where the tests are near."""
    code, said = judged(project, "swaps", "--all", "--near", "--verbose", "--only", "noticed")
    assert code == 1, said
    assert "a test fails: router/pay.py:noticed: receipt(… user ⇄ trace …)  [tests/test_pay.py::test_noticed]" in said
    assert "\nrouter/pay.py:unnoticed: receipt(… user ⇄ trace …)\nno test fails: 1 test files pass\n" in said
    assert "recording" not in said
