"""The Grafana dashboards. `helm/generate.py` writes them as JSON."""

import json
from typing import Any

from dashboards import audit, fleet, servers, tenants, work
from dashboards.panels import placed

DASHBOARDS = {
    "router-fleet": ("Router: fleet", fleet.PANELS),
    "router-tenants": ("Router: tenants", tenants.PANELS),
    "router-work": ("Router: dispatch and usage", work.PANELS),
    "router-servers": ("Router: Redis and NATS", servers.PANELS),
    "router-audit": ("Router: audit and store", audit.PANELS),
}


def variable(name: str) -> dict[str, Any]:
    """A choice among the values of a label of the pods."""
    query = f"label_values(router_ready, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(uid: str) -> str:
    """One dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[uid]
    document = {
        "uid": uid,
        "title": title,
        "tags": ["router-fleet"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["router-fleet"], "title": "Router", "asDropdown": True}],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
                variable("namespace"),
                variable("job"),
            ]
        },
        "panels": placed(panels),
    }
    return json.dumps(document, indent=1) + "\n"
