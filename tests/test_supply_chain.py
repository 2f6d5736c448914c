"""What is fetched is pinned: actions and images by digest, packages by hash; and what the image holds is listed."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def ci_module(name: str) -> ModuleType:
    """A script of .ci, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps_of(path: Path) -> list[dict[str, object]]:
    """All steps of a workflow."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_actions_are_pinned_by_digest(path: Path) -> None:
    """A tag can be moved to other code."""
    used = [str(step["uses"]) for step in steps_of(path) if "uses" in step]
    assert used
    assert [u for u in used if not re.search(r"@[0-9a-f]{40}$", u)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_checkout_leaves_no_credentials(path: Path) -> None:
    """Nothing that runs later needs to push."""
    checkouts = [step for step in steps_of(path) if "actions/checkout" in str(step.get("uses"))]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)  # type: ignore[index]


def test_images_are_pinned_by_digest() -> None:
    """The base of our image, and those of docker-compose.yml that are not built here."""
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    named = re.findall(r"image: \$\{\w+:-(\S+)\}", (ROOT / "docker-compose.yml").read_text())
    fetched = [base[1], *(image for image in named if not image.startswith("router-fleet"))]
    assert len(fetched) == 5
    assert [image for image in fetched if not DIGEST.search(image)] == []


def test_the_list_of_licences_is_that_of_what_runs() -> None:
    """docs/LICENCES.md names the packages that pods run, no more and no less."""
    module = ci_module("licences")
    listed = re.findall(r"^\| ([a-z0-9-]+) \|", (ROOT / "docs/LICENCES.md").read_text(), re.MULTILINE)
    assert [name for name in listed if name != "package"] == sorted(module.needed())


def test_every_licence_is_known() -> None:
    """No package leaves it out."""
    assert "not said" not in (ROOT / "docs/LICENCES.md").read_text()


def test_a_bill_of_materials_names_every_locked_package(tmp_path: Path) -> None:
    """CycloneDX, as the Dockerfile makes it: same names and versions as the lock that it is made of."""
    lock = tmp_path / "runtime.lock"
    wanted = {"orjson": "3.10.0", "msgspec": "0.20.0"}
    lock.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()))
    program = Path(sys.executable).with_name("cyclonedx-py")
    written = tmp_path / "sbom.json"
    command = [str(program), "requirements", "--output-reproducible", "-o", str(written), str(lock)]
    subprocess.run(command, check=True, capture_output=True)
    listed = json.loads(written.read_text())["components"]
    assert {one["name"]: one["version"] for one in listed} == wanted


def test_a_known_weakness_is_named_and_fails() -> None:
    """With the release that fixes it."""
    audit = ci_module("audit")
    known = {"id": "PYSEC-1", "fix_versions": ["2.0"]}
    found = {
        "dependencies": [{"name": "a", "version": "1.0", "vulns": [known]}, {"name": "b", "version": "1", "vulns": []}]
    }
    assert audit.weaknesses(json.dumps(found)) == ["a 1.0: PYSEC-1, fixed in 2.0"]
    assert audit.report(json.dumps(found), "")[-1] == "pip-audit: 2 of 2 packages looked up, 1 weaknesses"


@pytest.mark.parametrize("output", ["", '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'])
def test_without_a_database_the_audit_says_that_it_was_not_run(output: str) -> None:
    """It passes, and nobody takes that for a result."""
    said = ci_module("audit").report(output, "no route to host")
    assert len(said) == 1
    assert said[0].startswith("pip-audit: not run")
