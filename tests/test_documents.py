"""What the documents name is there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import CollectorRegistry

from router.cli.commands import build
from router.domain.alert import Condition
from router.settings.effective import reference
from router.telemetry import Telemetry

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/ARCHITECTURE.md",
    "docs/OPERATIONS.md",
    "examples/policies/README.md",
    "helm/router/README.md",
)


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(build())))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_their_options_exist(document: str) -> None:
    """Every `router …` in code is a command, and every option after it is one of its options."""
    wrong = []
    for line in re.findall(r"(?m)(?:`|^|\$ )router ([a-z][^`#|\n]*)", (ROOT / document).read_text()):
        words = [w for w in line.split() if re.fullmatch(r"-{0,2}[a-z][a-z-]*", w)]
        group = (words[0],)
        path = (words[0], words[1]) if hasattr(COMMANDS.get(group), "commands") and len(words) > 1 else group
        if path not in COMMANDS:
            wrong.append(line)
            continue
        known = {name for p in COMMANDS[path].params for name in p.opts}
        wrong += [f"{line}: {w}" for w in words if w.startswith("--") and w not in known]
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_and_metrics_exist(document: str) -> None:
    """Every ROUTER_… is a setting (… ends what begins several), every router_… a metric."""
    text = (ROOT / document).read_text()
    settings = {r.variable for r in reference()}
    secrets = {f"{r.variable}_FILE" for r in reference() if r.secret}
    named = set(re.findall(r"\bROUTER_[A-Z_]+\b(?!…)", text))
    assert named - settings - secrets == set()
    metrics = {row.name for row in Telemetry(CollectorRegistry()).rows}
    assert set(re.findall(r"\brouter_[a-z_]+\b", text)) - metrics == set()


def test_every_alert_of_the_fleet_has_its_row() -> None:
    """OPERATIONS says of each condition what it means and what to do."""
    rows = re.findall(r"(?m)^\| (`[a-z_`, ]+`) \| .+ \| .+ \|$", (ROOT / "docs" / "OPERATIONS.md").read_text())
    named = {name for cell in rows for name in re.findall(r"[a-z_]+", cell)}
    assert {c.value for c in Condition} - named == set()
