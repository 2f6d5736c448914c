"""`router audit`: tail, query."""

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.exits import Exit
from router.cli.output import note, print_json, print_table
from router.cli.target import JsonOption, RedisOption

if TYPE_CHECKING:
    from router.domain.audit import AuditEntry
    from router.settings import Settings

app = typer.Typer(help="Read a tenant's audit log.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option(help="The tenant.")]

PAGE = 500
LOOK_S = 0.5
_AGO = re.compile(r"(\d+)(s|m|h|d)")
_LEFT_OUT = {"request_id", "decision_id", "policy_hash"}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def tail(
    tenant: TenantOption,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many of the newest.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
    redis: RedisOption = None,
) -> None:
    """Show the newest entries, oldest first."""
    import asyncio

    from router.cli.target import settings_for

    asyncio.run(_tail(settings_for(redis=redis), tenant, lines, follow=follow, json=json))


@app.command()
def query(
    tenant: TenantOption,
    action: Annotated[str | None, typer.Option(help="An action, or its beginning: decision, breaker.opened, …")] = None,
    request_id: Annotated[str | None, typer.Option(help="Entries of one request.")] = None,
    user: Annotated[str | None, typer.Option(help="Entries of one user.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Not older: a time (2026-01-31T12:00Z) or an age (15m, 2h).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Older than: a time or an age.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many entries.")] = 100,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Find entries, newest first. Exit code 1: there is none."""
    import asyncio

    from router.cli.target import settings_for

    since_us = 0 if since is None else _moment_us(since, "--since")
    until_us = None if until is None else _moment_us(until, "--until")

    def wanted(entry: "AuditEntry") -> bool:
        return (
            (action is None or entry.action.startswith(action))
            and (request_id is None or entry.details.get("request_id") == request_id)
            and (user is None or entry.user_id == user)
            and (until_us is None or entry.ts_us < until_us)
        )

    async def find() -> "list[AuditEntry]":
        found: list[AuditEntry] = []
        async for entry in _newest_first(settings_for(redis=redis), tenant):
            if entry.ts_us < since_us or len(found) == limit:
                break
            if wanted(entry):
                found.append(entry)
        return found

    entries = asyncio.run(find())
    if json:
        print_json([_facts(e) for e in entries])
    elif entries:
        print_table(("time", "action", "request", "what"), map(_row, entries), whole=("time", "action"))
    else:
        note("no entry is like that")
    raise typer.Exit(Exit.OK if entries else Exit.NEGATIVE)


async def _newest_first(settings: "Settings", tenant: str) -> "AsyncIterator[AuditEntry]":
    from router.cli.room import store
    from router.store.audit import RedisAudit

    async with store(settings) as room:
        log = RedisAudit(room.keys, room.nodes)
        before: str | None = None
        while page := await log.newest(tenant, before=before, most=PAGE):
            for entry in page:
                yield entry
            before = page[-1].id


async def _tail(settings: "Settings", tenant: str, lines: int, *, follow: bool, json: bool) -> None:
    import asyncio

    from router.cli.room import store
    from router.store.audit import RedisAudit

    async with store(settings) as room:
        log = RedisAudit(room.keys, room.nodes)
        page = (await log.newest(tenant, most=lines))[::-1]
        last = "0-0"
        while True:
            for entry in page:
                _print_line(entry, json=json)
                last = entry.id
            if not follow:
                return
            if not page:
                await asyncio.sleep(LOOK_S)
            page = await log.after(tenant, last)


def _print_line(entry: "AuditEntry", *, json: bool) -> None:
    import sys

    import orjson

    if json:
        text = orjson.dumps(_facts(entry)).decode()
    else:
        text = "  ".join(str(cell) for cell in _row(entry) if cell is not None)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _facts(entry: "AuditEntry") -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(entry)
    return facts | {"timestamp": _time(entry.ts_us)}


def _row(entry: "AuditEntry") -> tuple[object, ...]:
    """Time, action, request, and the rest in words; what only machines need is left to --json."""
    facts: dict[str, Any] = {
        k: v for k, v in entry.details.items() if k not in _LEFT_OUT and not isinstance(v, dict | list)
    }
    if entry.resource_type != "request":
        facts = {entry.resource_type: entry.resource_id} | facts
    if entry.user_id is not None:
        facts["user"] = entry.user_id
    what = ", ".join(f"{k} {v}" for k, v in facts.items())
    return _time(entry.ts_us), entry.action, entry.details.get("request_id"), what


def _time(ts_us: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ts_us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment_us(text: str, option: str) -> int:
    import time
    from datetime import UTC, datetime

    age = _AGO.fullmatch(text)
    if age is not None:
        return int((time.time() - int(age[1]) * _SECONDS[age[2]]) * 1_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as e:
        raise typer.BadParameter(
            f"{text!r} is neither a time such as 2026-01-31T12:00Z nor an age such as 15m", param_hint=option
        ) from e
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)
