"""`router policy`: check, apply, list, show, delete, history, rollback, schema."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli import policy_check
from router.cli.shared.audit_rows import moment
from router.cli.shared.exits import Exit
from router.cli.shared.names import PolicyOption, TenantOption
from router.cli.shared.output import note, print_facts, print_json, print_table
from router.cli.shared.publishing import with_publisher
from router.cli.shared.target import JsonOption, NatsOption, RedisOption

if TYPE_CHECKING:
    from router.ports.policy_records import HistoryEntry, Record
    from router.usecases.policies.publish import PolicyPublisher, Published

app = typer.Typer(help="Check, write and read policies.", no_args_is_help=True)

ExpectOption = Annotated[
    int | None, typer.Option(min=0, help="Write only if the policy has this revision; 0: only if there is no policy.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]


app.command()(policy_check.check)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A policy document; - reads standard input.")],
    tenant: TenantOption,
    policy: PolicyOption = "default",
    expect_revision: ExpectOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    redis: RedisOption = None,
    nats: NatsOption = None,
) -> None:
    """Write a policy and announce it. Exit code 1: it was changed meanwhile (see --expect-revision), or the tenant
    would exceed a quota.

    Example: router policy apply policy.json --tenant acme --dry-run
    """
    document = policy_check.read_good(file)

    async def act(publisher: "PolicyPublisher") -> "Published":
        return await publisher.apply(
            tenant, policy_id=policy, document=document, expect_revision=expect_revision, dry_run=dry_run
        )

    _show_published(with_publisher(act, redis=redis, nats=nats), json)


@app.command()
def delete(
    tenant: TenantOption,
    policy: PolicyOption,
    expect_revision: ExpectOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    redis: RedisOption = None,
    nats: NatsOption = None,
) -> None:
    """Delete a policy and announce it. Exit code 1: there is none, or it was changed meanwhile."""

    async def act(publisher: "PolicyPublisher") -> "Published":
        return await publisher.delete(tenant, policy_id=policy, expect_revision=expect_revision, dry_run=dry_run)

    _show_published(with_publisher(act, redis=redis, nats=nats), json)


@app.command("list")
def list_(tenant: TenantOption, json: JsonOption = False, redis: RedisOption = None) -> None:
    """List a tenant's policies. Exit code 1: it has none."""

    async def act(publisher: "PolicyPublisher") -> "tuple[Record, ...]":
        return (await publisher.list(tenant)).records

    records = with_publisher(act, redis=redis, nats=None)
    if json:
        print_json([_facts(r) for r in records])
    elif records:
        print_table(("policy", "revision", "hash", "written"), [tuple(_facts(r).values()) for r in records])
    else:
        note(f"{tenant} has no policy (tenants are in `router tenant list`)")
    raise typer.Exit(Exit.OK if records else Exit.NEGATIVE)


@app.command()
def show(
    tenant: TenantOption, policy: PolicyOption = "default", json: JsonOption = False, redis: RedisOption = None
) -> None:
    """Show a policy. Exit code 1: there is no policy with that id."""
    import orjson

    async def act(publisher: "PolicyPublisher") -> "Record | None":
        return await publisher.show(tenant, policy_id=policy)

    record = with_publisher(act, redis=redis, nats=None)
    if record is None:
        note(f"{tenant} has no policy {policy} (see `router policy list --tenant {tenant}`)")
        if json:
            print_json(None)
        raise typer.Exit(Exit.NEGATIVE)
    document = orjson.loads(record.document)
    if json:
        print_json(_facts(record) | {"document": document})
        return
    print_facts(_facts(record).items())
    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


@app.command()
def history(
    tenant: TenantOption, policy: PolicyOption = "default", json: JsonOption = False, redis: RedisOption = None
) -> None:
    """Show the revisions of a policy, newest first, and who wrote them. Exit code 1: there are none."""

    async def act(publisher: "PolicyPublisher") -> "tuple[HistoryEntry, ...]":
        return await publisher.history(tenant, policy_id=policy)

    import orjson

    pasts = with_publisher(act, redis=redis, nats=None)
    if json:
        print_json([_past(p) | {"document": None if p.document is None else orjson.loads(p.document)} for p in pasts])
    elif pasts:
        columns = ("revision", "written", "by", "act", "of", "hash", "changes")
        print_table(columns, [(*_past(p).values(), _changes(p, older)) for p, older in pairwise((*pasts, None)) if p])
    else:
        note(f"policy {policy} of {tenant} has no history (tenants are in `router tenant list`)")
    raise typer.Exit(Exit.OK if pasts else Exit.NEGATIVE)


@app.command()
def rollback(
    tenant: TenantOption,
    to: Annotated[int, typer.Option("--to", min=1, metavar="REVISION", help="A revision that `history` shows.")],
    policy: PolicyOption = "default",
    expect_revision: ExpectOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    redis: RedisOption = None,
    nats: NatsOption = None,
) -> None:
    """Write an earlier revision of a policy again, as a new revision, and announce it. A deleted policy comes back.

    Exit code 1: the policy was changed meanwhile, or the tenant would exceed a quota.
    """

    async def act(publisher: "PolicyPublisher") -> "Published":
        return await publisher.rollback(
            tenant, policy_id=policy, revision=to, expect_revision=expect_revision, dry_run=dry_run
        )

    _show_published(with_publisher(act, redis=redis, nats=nats), json)


app.command()(policy_check.schema)


def _facts(record: "Record") -> dict[str, Any]:
    written = moment(record.created_ms * 1000)
    return {"policy": record.policy_id, "revision": record.revision, "hash": record.hash, "written": written}


def _past(p: "HistoryEntry") -> dict[str, Any]:
    written = moment(p.written_ms * 1000)
    return {
        "revision": p.revision,
        "written": written,
        "by": p.by,
        "act": p.act,
        "restores": p.restores,
        "hash": p.hash,
    }


def _changes(p: "HistoryEntry", older: "HistoryEntry | None") -> str:
    """What this revision changed; empty when there is no document to compare, or when the act says it."""
    import orjson

    from router.domain.policy.diff import diff

    if older is None or older.document is None or p.document is None:
        return ""
    return "\n".join(map(str, diff(orjson.loads(older.document), after=orjson.loads(p.document))))


def _show_published(published: "Published", json: bool) -> None:
    import msgspec

    if json:
        print_json(msgspec.to_builtins(published) | {"affects": published.affects})
        return
    for warning in published.warnings:
        note(f"warning: {warning}")
    for change in published.changes:
        typer.echo(change)
    if published.changes:
        typer.echo(f"for {published.affects}" + (", first given to:" if published.shares else ""))
    for share in published.shares:
        typer.echo(f"  {share}")
    what = f"{published.tenant_id}/{published.policy_id}"
    if not published.changed:
        typer.echo(f"{what} is already like that; nothing was changed")
    elif published.dry_run:
        typer.echo(f"{what} would be {'written' if published.hash else 'deleted'}; nothing was changed")
    else:
        typer.echo(f"{what} is {'written' if published.hash else 'deleted'}, revision {published.revision}")
