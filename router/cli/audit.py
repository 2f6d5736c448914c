"""`router audit`: query, tail, stats, and export from its own file."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli import audit_export
from router.cli.shared.audit_rows import COLUMNS, SinceOption, UntilOption, facts, moment, moment_ms, print_line, row
from router.cli.shared.exits import Exit
from router.cli.shared.names import NO_TENANTS_LOG, LogOption
from router.cli.shared.output import note, print_facts, print_json, print_table
from router.cli.shared.target import JsonOption, RedisOption

if TYPE_CHECKING:
    from router.domain.audit.records import AuditEntry, AuditQuery, AuditStats
    from router.settings import Settings
    from router.usecases.audit.query import AuditPage

app = typer.Typer(help="Read a tenant's audit log.", no_args_is_help=True)


RESOURCE_TYPES = ("request", "assignment", "policy", "provider", "tenant", "gate")
POLL_S = 0.5
TAIL_MAX = 500

LinesOption = Annotated[int, typer.Option("--lines", "-n", min=1, max=TAIL_MAX, help="How many of the newest.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="One JSON document a line.")]

app.command()(audit_export.export)


@app.command()
def query(
    tenant: LogOption,
    action: Annotated[str | None, typer.Option(help="An action, or its beginning: decision, breaker.opened, …")] = None,
    user: Annotated[str | None, typer.Option(help="Entries of one user or admin.")] = None,
    resource: Annotated[
        str | None, typer.Option(metavar="TYPE[:ID]", help="request, assignment, policy, provider, tenant or gate.")
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="Entries of one request.")] = None,
    decision_id: Annotated[str | None, typer.Option(help="Entries of one decision.")] = None,
    trace: Annotated[str | None, typer.Option(help="Entries of one trace.")] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="decided, degraded, conflict, limited, no_candidate, tenant_off, audit_quota, validator_blocked, "
            "extension_unavailable, extension_timeout, extension_error; success, error, timeout, cancelled; "
            "accepted, rejected."
        ),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest N entries, at most.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Continue after the previous page.")] = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Find entries, newest first, page by page. The tenant ~ is the log of no tenant: uses of roles, the gate,
    purges. Exit code 1: there is none.

    Example: router audit query --tenant acme --action breaker --since 2h
    """
    import asyncio

    from router.app.adapter_settings import audit_identity
    from router.cli.shared.target import settings_for
    from router.domain.audit.records import AuditQuery
    from router.usecases.audit.query import checked

    kind, _, resource_id = (resource or "").partition(":")
    if resource is not None and kind not in RESOURCE_TYPES:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(RESOURCE_TYPES)}", param_hint="--resource")
    settings = settings_for(redis=redis)
    audit_query = AuditQuery(
        tenant_id=tenant,
        since_ms=moment_ms(since, option="--since"),
        until_ms=moment_ms(until, option="--until"),
        action=action,
        user_id=user,
        resource_type=kind or None,
        resource_id=resource_id or None,
        trace_id=trace,
        decision_id=decision_id,
        request_id=request_id,
        outcome=outcome,
        user_hash=None if user is None else audit_identity(settings).hashed(user),
    )
    checked(audit_query, cursor, limit)
    page = asyncio.run(_page(settings, audit_query, cursor, limit))
    if json:
        print_json({"entries": [facts(e) for e in page.entries], "cursor": page.cursor, "read": page.read})
    elif page.entries:
        print_table(COLUMNS, map(row, page.entries), whole=("time", "action"))
    else:
        note(_none(tenant, "that matches" + (f" among the {page.read:,} that were read" if page.cursor else "")))
    if page.cursor is not None and not json:
        note(f"more: --cursor {page.cursor}")
    raise typer.Exit(Exit.OK if page.entries else Exit.NEGATIVE)


def _none(tenant: str, which: str = "") -> str:
    """The note that there is no entry. It says how to list tenants, because the name may be wrong."""
    where = "the log of no tenant" if tenant == NO_TENANTS_LOG else tenant
    return f"{where} has no audit entry {which}".rstrip() + " (tenants are in `router tenant list`)"


async def _page(settings: "Settings", wanted: "AuditQuery", cursor: str | None, limit: int) -> "AuditPage":
    from router.cli.shared.connections import open_store
    from router.store.audit.log import RedisAudit
    from router.usecases.audit.query import QueryAudit

    async with open_store(settings, reading=True) as store:
        return await QueryAudit(RedisAudit(store.keys, store.nodes)).page(wanted, cursor=cursor, limit=limit)


@app.command()
def tail(
    tenant: LogOption,
    lines: LinesOption = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new ones, until Ctrl-C.")] = False,
    json: JsonLinesOption = False,
    redis: RedisOption = None,
) -> None:
    """Show the newest entries, oldest first. Exit code 1: there is none."""
    import asyncio

    from router.cli.shared.target import settings_for

    if not asyncio.run(_tail(settings_for(redis=redis), tenant, lines, follow=follow, json=json)):
        note(_none(tenant))
        raise typer.Exit(Exit.NEGATIVE)


async def _tail(settings: "Settings", tenant: str, lines: int, *, follow: bool, json: bool) -> bool:
    """Whether there was an entry."""
    import asyncio

    from router.cli.shared.connections import open_store
    from router.domain.audit.records import AuditQuery
    from router.store.audit.log import RedisAudit

    async with open_store(settings, reading=True) as store:
        log = RedisAudit(store.keys, store.nodes)
        page = (await log.search(AuditQuery(tenant), maximum=lines)).found[::-1]
        last = "0-0"
        while True:
            for entry in page:
                print_line(entry, json=json)
                last = entry.id
            if not follow:
                return bool(page)
            if not page:
                await asyncio.sleep(POLL_S)
            page = await log.after(tenant, last=last, maximum=TAIL_MAX)


@app.command()
def unknown(
    lines: LinesOption = 20,
    json: JsonLinesOption = False,
    redis: RedisOption = None,
) -> None:
    """Show the newest refusals of unknown tenants and policies, oldest first. Exit code 1: there is none."""
    import asyncio

    from router.cli.shared.target import settings_for

    entries = asyncio.run(_unknown(settings_for(redis=redis), lines))
    for entry in reversed(entries):
        print_line(entry, json=json, tenant=True)
    if not entries:
        note("no request named an unknown tenant or policy")
    raise typer.Exit(Exit.OK if entries else Exit.NEGATIVE)


async def _unknown(settings: "Settings", lines: int) -> "list[AuditEntry]":
    from router.app.adapter_settings import retention_bounds
    from router.cli.shared.connections import open_store
    from router.store.audit.unknown_tenants import RedisUnknownTenants

    async with open_store(settings, reading=True) as store:
        return await RedisUnknownTenants(store.keys, store.nodes, retention_bounds(settings).ttl_ms).newest(lines)


@app.command()
def stats(tenant: LogOption, json: JsonOption = False, redis: RedisOption = None) -> None:
    """Show the size of a log, and its actions over the newest 10,000 entries. Exit code 1: there is no entry."""
    import asyncio

    import msgspec

    from router.cli.shared.target import settings_for

    found = asyncio.run(_stats(settings_for(redis=redis), tenant))
    oldest, newest = (None if us is None else moment(us) for us in (found.oldest_us, found.newest_us))
    if json:
        print_json(msgspec.to_builtins(found) | {"tenant_id": tenant, "oldest": oldest, "newest": newest})
    elif found.entries:
        counts = (("entries", f"{found.entries:,}"), ("bytes", f"{found.size_bytes:,}"))
        print_facts([*counts, ("oldest", oldest), ("newest", newest)])
        shares = ((a, f"{n:,}", f"{n / found.sampled:.1%}") for a, n in found.actions.items())
        print_table(("action", f"of the newest {found.sampled:,}", "share"), shares)
    else:
        note(_none(tenant))
    raise typer.Exit(Exit.OK if found.entries else Exit.NEGATIVE)


async def _stats(settings: "Settings", tenant: str) -> "AuditStats":
    from router.cli.shared.connections import open_store
    from router.store.audit.log import RedisAudit
    from router.usecases.audit.query import QueryAudit

    async with open_store(settings, reading=True) as store:
        return await QueryAudit(RedisAudit(store.keys, store.nodes)).stats(tenant)
