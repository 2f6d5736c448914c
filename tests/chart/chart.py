"""The chart, rendered by the real helm, as objects that can be compared."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.servers import missing

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "router"
TOOLS = ROOT / ".tools" / "bin"

Values = dict[str, Any]
Object = dict[str, Any]

NEEDED: Values = {"redis": {"url": "redis://redis:6379/0"}, "nats": {"urls": ["nats://nats:4222"]}}


def tool(name: str) -> str:
    """The path of a tool: from `.ci/get_tools.py`, else from PATH."""
    found = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        missing(name, "run `make tools`")
    return str(found)


class Refused(Exception):
    """helm did not render; the message is what it wrote."""


def render(values: Values | None = None, *, version: str = "1.31.0") -> list[Object]:
    """Every object of the release `demo` in namespace `apps`, with the two needed values and these.

    :raises Refused: the values are refused.
    """
    return render_only(NEEDED | (values or {}), version=version)


def render_only(values: Values, *, version: str = "1.31.0") -> list[Object]:
    """The same with nothing but these values."""
    return [document for document in yaml.safe_load_all(_helm(yaml.safe_dump(values), version)) if document]


@cache
def _helm(values: str, version: str) -> str:
    command = [
        tool("helm"),
        "template",
        "demo",
        str(CHART),
        "--namespace",
        "apps",
        "--kube-version",
        version,
        "-f",
        "-",
    ]
    done = subprocess.run(command, input=values, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def changes(values: Values) -> dict[str, Any]:
    """What these values change of the default rendering: path → new value, None where something is gone."""
    before, after = _flat(render()), _flat(render(values))
    return {p: after.get(p) for p in sorted(before.keys() | after.keys()) if before.get(p) != after.get(p)}


def one(objects: list[Object], kind: str, name: str = "demo-router") -> Object:
    """The object of that kind and name."""
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def container(objects: list[Object]) -> Object:
    """The pod's only container."""
    found: Object = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(objects: list[Object]) -> dict[str, Any]:
    """Its variables."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container(objects)["env"]}


def _flat(objects: list[Object]) -> dict[str, Any]:
    return dict(pair for o in objects for pair in _walk(f"{o['kind']}/{o['metadata']['name']}", o))


def _walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Leaves by path; items of a list go by their name where they have one, so one more does not move the rest."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _walk(f"{path}.{key}", part)
    elif isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
        for part in value:
            yield from _walk(f"{path}.{part['name']}", {k: v for k, v in part.items() if k != "name"})
    else:
        yield path, value
