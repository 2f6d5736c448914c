"""Writes what is generated of the chart: values.schema.json, README.md and dashboards/*.json; `--check` compares.

values.yaml is the source: `# --` above a value describes it, `# @schema {…}` adds to the type that its default has. The
names of `settings` are those of the code, so that a misspelt one fails the install and not the pod.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dashboards
import yaml

from router.settings import Settings
from router.settings.environment import is_secret, variable

CHART = Path(__file__).parent / "router"
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")

# What the chart sets by itself, from values of their own.
OWN = {
    f"ROUTER_{name}"
    for name in (
        *("POD_NAME", "HTTP_PORT", "DRAIN_TIMEOUT", "PARTITIONS", "CP_STATE_PATH", "POLICY_DIR"),
        *(
            "POLICY_SOURCE",
            "REDIS_URL",
            "REDIS_REPLICA_URL",
            "REDIS_CLUSTER",
            "REDIS_USERNAME",
            "REDIS_SENTINELS",
            "REDIS_SENTINEL_MASTER",
            "REDIS_SENTINEL_USERNAME",
            "REDIS_SENTINEL_TLS",
            "REDIS_TLS_CA",
            "REDIS_TLS_CERT",
            "REDIS_TLS_KEY",
            "NATS_URL",
            "NATS_USER",
        ),
        *("API", "API_PORT", "API_AUTH", "API_KEYS_FILE", "API_HOSTS", "API_CORS_ORIGINS"),
        *("API_TLS_CERT", "API_TLS_KEY", "API_TLS_CLIENT_CA"),
        *("NATS_NKEY_SEED_FILE", "NATS_INBOX_PREFIX", "NATS_JS_DOMAIN", "NATS_JS_API_PREFIX"),
        *(
            "NATS_CREDS_FILE",
            "NATS_TLS_CA",
            "NATS_TLS_CERT",
            "NATS_TLS_KEY",
            "NATS_TLS_FIRST",
            "OTLP_ENDPOINT",
            "TRACE_SAMPLE_RATIO",
        ),
    )
}


class Note(NamedTuple):
    """What the comments above a value say."""

    text: str
    schema: dict[str, Any]


def notes(text: str) -> dict[str, Note]:
    """Path of a value → its comments."""
    found: dict[str, Note] = {}
    above: list[str] = []
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            above.append(stripped[1:].strip())
            continue
        key = _KEY.match(line)
        if key:
            indent = len(key[1])
            stack = [entry for entry in stack if entry[0] < indent] + [(indent, key[2])]
            words = [a.removeprefix("--").strip() for a in above if a.startswith("--")]
            schema = next((json.loads(a.removeprefix("@schema")) for a in above if a.startswith("@schema")), {})
            if words or schema:
                found[".".join(name for _, name in stack)] = Note(" ".join(words), schema)
        above = []
    return found


def settings_schema() -> dict[str, Any]:
    """The settings that a user may set beside the chart's values."""
    names: dict[str, Any] = {}
    for field, info in Settings.model_fields.items():
        if variable(field) not in OWN and not is_secret(info):
            names[variable(field)] = {"type": "string", "description": info.description}
    return {"type": "object", "additionalProperties": False, "properties": names}


def schema_of(value: Any, path: str, told: dict[str, Note]) -> dict[str, Any]:
    """The JSON Schema of one value."""
    note = told.get(path, Note("", {}))
    more = dict(note.schema)
    head = {"description": note.text} if note.text else {}
    if more.pop("$settings", False):
        return head | settings_schema()
    match value:
        case bool():
            found: dict[str, Any] = {"type": "boolean"}
        case int():
            found = {"type": "integer"}
        case float():
            found = {"type": "number"}
        case str():
            found = {"type": "string"}
        case list():
            found = {"type": "array"}
        case dict() if "additionalProperties" in more:
            found = {"type": "object"}
        case dict():
            parts = {k: schema_of(v, f"{path}.{k}" if path else k, told) for k, v in value.items()}
            found = {"type": "object", "additionalProperties": False, "properties": parts}
        case _:
            raise ValueError(f"{path}: a default of {type(value).__name__} says no type")
    return head | found | more


def schema(values: dict[str, Any], told: dict[str, Note]) -> str:
    """values.schema.json."""
    root = schema_of(values, "", told)
    root["properties"]["global"] = {"type": "object", "description": "Helm passes it to every chart; not read here."}
    return (
        json.dumps({"$schema": "http://json-schema.org/draft-07/schema#"} | root, indent=1, ensure_ascii=False) + "\n"
    )


def rows(value: Any, path: str, told: dict[str, Note]) -> Iterator[tuple[str, str, str]]:
    """(path, default, description) of every described value.

    :raises ValueError: a value has no description.
    """
    note = told.get(path)
    if isinstance(value, dict) and not (note and note.text):
        for key, part in value.items():
            yield from rows(part, f"{path}.{key}" if path else key, told)
        return
    if note is None or not note.text:
        raise ValueError(f"values.yaml: {path} has no description")
    yield path, json.dumps(value, ensure_ascii=False), note.text


HEAD = """# Chart `router`

A fleet of stateless routers. Redis (≥ 7, `maxmemory-policy noeviction`, AOF on) and NATS with JetStream are brought by
you; the chart has no sub-charts. Values are checked: one that does not exist, or two that contradict each other, fail
the install with a sentence that says what to change.

```
helm install router helm/router --set redis.url=redis://redis:6379/0 --set 'nats.urls={nats://nats:4222}'
helm test router
```

`values-dev.yaml` shows the smallest set-up, Redis and NATS included. Secrets are never values: name an existing Secret.
Kubernetes ≥ 1.20 (there with `policy/v1beta1` and `autoscaling/v2beta2`). Upgrades, roll-backs, sizes and alerts are in
`docs/OPERATIONS.md`.

A change of `cp.state` or `policies.documents` reaches running pods through their mounted ConfigMaps, without a restart.
With `policies.source: redis` (the default) files only seed an empty store.

Prometheus Operator, KEDA, a custom metrics API and Grafana's sidecar are optional: their objects are off by default.

## Values

Generated from `values.yaml` by `make chart`.

| value | default | what it does |
| --- | --- | --- |
"""


def readme(values: dict[str, Any], told: dict[str, Note]) -> str:
    """The chart's README."""
    lines = (f"| `{path}` | `{default}` | {text} |\n" for path, default, text in rows(values, "", told))
    return HEAD + "".join(lines)


def files() -> dict[Path, str]:
    """Every generated file."""
    text = (CHART / "values.yaml").read_text()
    values, told = yaml.safe_load(text), notes(text)
    made = {CHART / "values.schema.json": schema(values, told), CHART / "README.md": readme(values, told)}
    return made | {CHART / "dashboards" / f"{uid}.json": dashboards.dashboard(uid) for uid in dashboards.DASHBOARDS}


def main() -> int:
    """Write, or with --check compare; returns 1 when something differs."""
    made = files()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(CHART)} is not what its source says: run `make chart`")
        return 1 if stale else 0
    for path in stale:
        path.write_text(made[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
