"""Every query that the rules and dashboards ask, and the metrics in them."""

import json
import re
from typing import Any

import yaml

from tests.chart.chart import CHART

RULES = CHART / "rules" / "router.yaml"


def rules() -> list[dict[str, Any]]:
    """All rules of all groups."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> dict[str, str]:
    """Every query of the rules and dashboards, by where it is."""
    found = {f"{RULES.name}: {r.get('alert') or r['record']}": r["expr"] for r in rules()}
    for path in sorted((CHART / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                found[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


def metrics_in(expression: str) -> set[str]:
    """The names of metrics in a query; what recording rules make is left out, and so are labels."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    bare = re.sub(r"(?:by|without|on)\s*\([^)]*\)", "", bare)
    return {n for n in re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", bare) if n.startswith(("router_", "process_"))}
