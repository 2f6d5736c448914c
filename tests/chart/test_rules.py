"""Rules: alerts fire when they must and only then, and their pages exist."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.chart import ROOT, tool
from tests.chart.queries import RULES, expressions, rules
from tests.chart.rules import CASES, MORE, WELL, Case


def run_promtool(folder: Path, case: Case, firing: list[str]) -> str:
    """What promtool says against exactly these alerts firing; empty: nothing."""
    count = case.minutes // int(case.interval.removesuffix("m")) + 1
    series = {name: values.replace("{n}", str(count)) for name, values in (WELL | case.series).items()}
    test = {
        "interval": case.interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": case.interval, "tests": [test]}))
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """No alert is untested."""
    assert {r["alert"] for r in rules() if "alert" in r} == set(CASES)


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_in_its_case(alert: str, tmp_path: Path) -> None:
    """It, and no other that the case does not name."""
    case = CASES[alert]
    assert run_promtool(tmp_path, case, [alert, *case.also]) == ""


@pytest.mark.parametrize("situation", MORE)
def test_what_fires_in_a_situation(situation: str, tmp_path: Path) -> None:
    """Exactly what is named with it: alerts that have begun do not flap, and what passes raises none."""
    case, firing = MORE[situation]
    assert run_promtool(tmp_path, case, [*firing]) == ""


@pytest.mark.parametrize("minutes", [15, 70])
def test_nothing_fires_on_a_healthy_fleet(minutes: int, tmp_path: Path) -> None:
    """Early, and when the long windows are full."""
    assert run_promtool(tmp_path, Case({}, minutes), []) == ""


def test_every_alert_has_its_page() -> None:
    """The runbook link names a heading of docs/OPERATIONS.md."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "OPERATIONS.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    for rule in rules():
        if "alert" in rule:
            file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            assert file == "docs/OPERATIONS.md"
            assert anchor == rule["alert"].lower()
            assert anchor in anchors, rule["alert"]


def test_recorded_series_that_are_used_are_recorded() -> None:
    """A rule that names router:… finds it among the recording rules."""
    recorded = {r["record"] for r in rules() if "record" in r}
    used = {n for e in expressions().values() for n in re.findall(r"router:[a-z0-9_:]+", e)}
    assert used <= recorded
