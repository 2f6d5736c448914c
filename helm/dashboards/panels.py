"""Panels of the Grafana dashboards as data: what each asks, and in which unit."""

from typing import Any

FLEET = '{namespace=~"$namespace",job=~"$job"}'
WIDTH = 24
Panel = dict[str, Any]


def select(more: str = "") -> str:
    """The label selector of every query; `more` is added to it."""
    return FLEET if not more else FLEET[:-1] + f",{more}}}"


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Per second, over the fleet or by labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{select(more)}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "", more: str = "") -> str:
    """A quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{select(more)}[$__rate_interval])))"


def panel(kind: str, title: str, queries: list[tuple[str, str]], unit: str, about: str, width: int = 8) -> Panel:
    """One panel; `queries` are (expression, legend)."""
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"w": width, "h": 4 if kind == "stat" else 8, "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "expr": expression,
                "legendFormat": legend,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                **({"format": "heatmap"} if kind == "heatmap" else {}),
            }
            for n, (expression, legend) in enumerate(queries)
        ],
        **_OPTIONS[kind],
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {"options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}}},
    "stat": {"options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}},
    "heatmap": {
        "options": {"calculate": False, "yAxis": {"unit": "s"}, "color": {"mode": "scheme", "scheme": "Blues"}}
    },
}


def lines(title: str, queries: list[tuple[str, str]], unit: str, about: str, width: int = 8) -> Panel:
    """Curves over time."""
    return panel("timeseries", title, queries, unit, about, width)


def stat(title: str, query: str, unit: str, about: str) -> Panel:
    """One number, now."""
    return panel("stat", title, [(query, "")], unit, about, 4)


def placed(panels: list[Panel]) -> list[Panel]:
    """Left to right, row by row, with ids."""
    x = y = height = 0
    found = []
    for number, one in enumerate(panels, 1):
        position = dict(one["gridPos"])
        if x + position["w"] > WIDTH:
            x, y, height = 0, y + height, 0
        found.append(one | {"id": number, "gridPos": position | {"x": x, "y": y}})
        x += position["w"]
        height = max(height, position["h"])
    return found
