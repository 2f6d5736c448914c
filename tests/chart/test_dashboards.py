"""Dashboards as Grafana reads them: nothing lies on anything else, every panel says what it is, every name is known."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.chart.chart import CHART

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
# Of Grafana's units: another word is shown as a suffix, and nothing is scaled.
UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps", "ops"}
KINDS = {"timeseries", "stat", "heatmap"}


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of them."""
    path: Path = request.param
    found: dict[str, Any] = json.loads(path.read_text())
    assert found["uid"] == path.stem
    return found


def test_panels_have_places_of_their_own(dashboard: dict[str, Any]) -> None:
    """Within the 24 columns, none on another, each with an id and a title of its own."""
    panels = dashboard["panels"]
    assert len({p["id"] for p in panels}) == len({p["title"] for p in panels}) == len(panels)
    for place in (p["gridPos"] for p in panels):
        assert 0 <= place["x"] <= 24 - place["w"]
    for a, b in combinations(panels, 2):
        one, other = a["gridPos"], b["gridPos"]
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (a["title"], b["title"])


def test_panels_say_what_they_are(dashboard: dict[str, Any]) -> None:
    """A description, a unit and a kind that Grafana knows, and queries that can be told apart."""
    for panel in dashboard["panels"]:
        assert panel["description"], panel["title"]
        assert panel["type"] in KINDS
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"]) > 0
        labels = {name for t in panel["targets"] for name in re.findall(r"{{(\w+)}}", t["legendFormat"])}
        grouped = {
            name.strip()
            for t in panel["targets"]
            for g in re.findall(r"by \(([^)]*)\)", t["expr"])
            for name in g.split(",")
        }
        assert labels <= grouped, f"{panel['title']}: a legend names what its query drops"


def test_queries_name_variables_that_are_there(dashboard: dict[str, Any]) -> None:
    """All of them ask the chosen source for the chosen fleet."""
    there = {v["name"] for v in dashboard["templating"]["list"]}
    assert there == {"datasource", "namespace", "job"}
    for target in (t for p in dashboard["panels"] for t in p["targets"]):
        assert target["datasource"]["uid"] == "${datasource}"
        assert set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"} == {"namespace", "job"}, target["expr"]
