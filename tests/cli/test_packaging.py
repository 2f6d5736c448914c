"""What is installed: the wheel and the lock."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_carries_scripts_and_examples(tmp_path: Path) -> None:
    """Every Lua script and every example is in the wheel, where `router.installed_files` looks."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {
        name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(("router/_lua", "router/_examples"))
    }
    kept = {
        f"router/_{folder}/{path.relative_to(ROOT / folder)}"
        for folder in ("lua", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert packed == kept
    assert "router/_lua/decide.lua" in packed


def test_the_lock_has_every_dependency() -> None:
    """Each package that pyproject.toml names is in requirements.lock; else: make lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["local"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    missing = {re.split(r"[\[<>=~ ;]", line)[0] for line in named} - locked
    assert missing == set()


def test_the_lock_names_no_registry() -> None:
    """The lock has names, versions and hashes only, so that any mirror serves."""
    assert "://" not in (ROOT / "requirements.lock").read_text()
