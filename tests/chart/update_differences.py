"""Writes what each feature changes of the default into differences.yaml: `python -m tests.chart.update_differences`."""

from pathlib import Path
from typing import Any

import yaml

from tests.chart.chart import changes, render
from tests.chart.features import FEATURES

STATED = Path(__file__).with_name("differences.yaml")
GONE = "gone"
# Rules and dashboards have files of their own, which show their changes.
_LONGEST = 200
_NOT_TOLD = (".spec.groups.", ".metadata.labels.app.kubernetes.io/", ".metadata.labels.helm.sh/")


def differences(feature: str) -> dict[str, Any]:
    """Path → new value, None where something is gone; an object that is gone is one line. Not told are the labels that
    every object has, and what is in long texts."""
    left = {f"{o['kind']}/{o['metadata']['name']}" for o in render(FEATURES[feature])}
    found: dict[str, Any] = {}
    for path, value in changes(FEATURES[feature]).items():
        name = path.partition(".")[0]
        if name not in left:
            found[name] = GONE
        elif not any(part in path for part in _NOT_TOLD):
            long = isinstance(value, str) and len(value) > _LONGEST
            found[path] = f"a text that begins with {value[:20]!r}" if long else value
    return found


if __name__ == "__main__":
    STATED.write_text(yaml.safe_dump({feature: differences(feature) for feature in FEATURES}, width=120))
