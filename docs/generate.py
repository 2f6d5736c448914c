"""Writes docs/REFERENCE.md and docs/policy.schema.json from the code: `make docs`. With --check it only compares."""

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import policy_language as language
from prometheus_client import CollectorRegistry
from typer.main import get_command

from router.cli.commands import build
from router.cli.shared.exits import MEANINGS
from router.cli.shared.parties import COMMANDS
from router.domain.alert import ALERTS
from router.domain.policy.document import DOCUMENT
from router.settings import reference
from router.store.key_kinds import KEYS
from router.telemetry import Event, Telemetry
from router.usecases.admin.acts import ACTS
from router.wire.codes import NUMBERS, legacy
from router.wire.policies import schema_file
from router.wire.subjects import ADMIN

HERE = Path(__file__).parent

INTRO = """# Reference

Generated from the code by `make docs`; a test fails when it differs.
The policy language is published as a JSON Schema: [policy.schema.json](policy.schema.json).
"""

SETTINGS = """
Every setting is an environment variable. Durations are written with their unit (`500ms`, `60s`, `30m`, `24h`, `7d`; a
bare number is in the unit shown), sizes as `64KiB` or `1MiB`, lists with commas. An empty variable counts as not set. A
secret (🔑) may come from a file instead: append `_FILE` and give the path; setting both is refused. Any other
`ROUTER_…` variable is refused, except what Kubernetes injects for Services called `router` or `router-…`.
`router config` prints what is in force.
"""

COMMANDS_INTRO = """`party` is the least party of `router acl` whose rights are enough; viewer, operator and admin
include the lower ones. A change of a policy or a purge is announced over NATS; without NATS each pod notices it with
its next decision.
"""

ADMIN_ACTS = f"""Requests on `{ADMIN}.<act>` with a JSON object as the body, and a token: `authorization: Bearer TOKEN`
or in the field `api_key`. A role includes the lower ones: viewer, operator, admin. With `ROUTER_ADMIN_NATS_READ=open`
these acts need no token: {", ".join(f"`{act.name}`" for act in ACTS.values() if act.may_be_open)}.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def code(text: str) -> str:
    """Text as code; nothing stays nothing, and words in brackets stay words."""
    return f"`{text}`" if text and not text.startswith("(") else text


def settings() -> str:
    """All settings, by group."""
    parts = ["## Settings\n", SETTINGS.lstrip()]
    for group, rows in groupby(reference(), key=lambda r: r.group):
        cells = [(code(r.variable) + (" 🔑" if r.secret else ""), code(r.default), r.unit, r.description) for r in rows]
        parts.append(f"### {group}\n\n{table(('variable', 'default', 'unit', 'what it does'), cells)}")
    return "\n".join(parts)


def metrics() -> str:
    """All metrics of a pod."""
    rows = [
        (code(m.name), m.kind, ", ".join(map(code, m.labels)), m.documentation)
        for m in Telemetry(CollectorRegistry()).rows
    ]
    intro = "Beside these: `process_*` of the Prometheus client.\n"
    return f"## Metrics\n\n{intro}\n{table(('metric', 'type', 'labels', 'what it counts'), rows)}"


def events() -> str:
    """All events of the log."""
    return f"## Log events\n\nThe `event` of a log line is one of: {', '.join(code(e.value) for e in Event)}.\n"


def errors() -> str:
    """All error codes."""
    rows = [
        (code(c.value), str(n.http), str(n.grpc), code(legacy(c).value) if legacy(c) is not c else "")
        for c, n in NUMBERS.items()
    ]
    head = ("code", "HTTP", "gRPC", "with ROUTER_LEGACY_ERROR_CODES")
    return f"## Error codes\n\n{table(head, rows)}"


def alerts() -> str:
    """All alert conditions."""
    rows = [(code(c.value), k.severity.value, k.component, k.scope, k.message) for c, k in ALERTS.items()]
    return f"## Alerts\n\n{table(('condition', 'severity', 'component', 'one per', 'message'), rows)}"


def keys() -> str:
    """All keys in Redis."""
    rows = [(code(k.pattern), k.type, k.ttl, k.holds) for k in KEYS.values()]
    return f"## Keys in Redis\n\n{table(('key', 'type', 'lives', 'holds'), rows)}"


def admin_acts() -> str:
    """All admin acts: the first line of each function says what the act does."""
    rows = [
        (code(act.name), act.role.label, ", ".join(map(code, act.fields)), (act.run.__doc__ or "").split("\n")[0])
        for act in ACTS.values()
    ]
    return f"## Admin acts over NATS\n\n{ADMIN_ACTS}\n{table(('act', 'role', 'fields', 'what it does'), rows)}"


def commands() -> str:
    """All commands of `router`, and what each needs."""
    rows = [
        (
            code(f"router {name}"),
            first_line(name),
            "–" if needs.party is None else code(needs.party),
            needs.servers,
        )
        for name, needs in COMMANDS.items()
    ]
    return f"## Commands\n\n{COMMANDS_INTRO}\n{table(('command', 'what it does', 'party', 'servers'), rows)}"


def first_line(name: str) -> str:
    """The first sentence of a command's help."""
    command: Any = get_command(build())
    for word in name.partition(" --")[0].split():
        command = command.commands[word]
    return str(command.help).partition("\n")[0].strip()


def exits() -> str:
    """The command line's exit codes."""
    rows = [(str(int(code)), words) for code, words in MEANINGS.items()]
    return f"## Exit codes of `router`\n\n{table(('code', 'meaning'), rows)}"


def policies() -> str:
    """The policy language: every object with its fields, then the examples."""
    parts = [language.INTRO]
    for path, fields in language.sections("", DOCUMENT):
        parts.append(f"### {code(path) or 'The policy'}\n\n{table(language.HEAD, language.rows(fields))}")
    parts.append(language.EXAMPLES_INTRO)
    parts.extend(language.example(name, one) for name, one in language.examples())
    return "\n".join(parts)


def files() -> dict[Path, str]:
    """Every generated file, with its content."""
    generated = (policies, settings, metrics, events, errors, alerts, keys, admin_acts, commands, exits)
    parts = [INTRO, *(section() for section in generated)]
    schema = schema_file()
    return {
        HERE / "REFERENCE.md": "\n".join(parts),
        HERE / "policy.schema.json": schema.decode() if isinstance(schema, bytes) else schema,
    }


def main() -> int:
    """Write, or with --check compare; returns 1 when something differs."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.name} is not what the code says: run `make docs`")
        return 1 if stale else 0
    for path in stale:
        path.write_text(files()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
