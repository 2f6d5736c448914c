"""`router audit export`: a tenant's log as JSON lines with a manifest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.shared.audit_rows import SinceOption, UntilOption, moment_ms
from router.cli.shared.exits import Exit
from router.cli.shared.names import LogOption
from router.cli.shared.output import note, print_facts, print_json
from router.cli.shared.target import JsonOption, RedisOption

if TYPE_CHECKING:
    from router.edge.audit_files import Manifest
    from router.settings import Settings

_BATCH = 512


def export(
    tenant: LogOption,
    out: Annotated[Path, typer.Option(help="The folder; each tenant gets a sub-folder.")],
    since: SinceOption = None,
    until: UntilOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Write a tenant's log to a file, oldest first, with a manifest. The pods' own export is not affected.

    Exit code 1: there is no entry.

    Example: router audit export --tenant acme --since 1d --out ./audit
    """
    import asyncio

    import msgspec

    from router.cli.shared.target import settings_for

    since_ms, until_ms = moment_ms(since, option="--since"), moment_ms(until, option="--until")
    manifest = asyncio.run(
        _export(settings=settings_for(redis=redis), tenant=tenant, out=out, since_ms=since_ms, until_ms=until_ms)
    )
    if manifest is None:
        note(f"{tenant} has no entry that matches, and no file was written (tenants are in `router tenant list`)")
        if json:
            print_json(None)
        raise typer.Exit(Exit.NEGATIVE)
    facts = msgspec.to_builtins(manifest)
    if json:
        print_json(facts)
    else:
        print_facts(facts.items())


async def _export(
    settings: "Settings", tenant: str, out: Path, since_ms: int | None, until_ms: int | None
) -> "Manifest | None":
    from router.cli.shared.connections import open_store
    from router.edge.audit_files import AuditFile
    from router.errors import InvalidInput, Problem
    from router.store.audit.log import RedisAudit, place

    async with open_store(settings, reading=True) as store:
        log = RedisAudit(store.keys, store.nodes)
        last = f"{since_ms - 1}-{2**64 - 1}" if since_ms else "0-0"
        try:
            with AuditFile(out, tenant) as file:
                while some := await log.after(tenant, last=last, maximum=_BATCH):
                    last = some[-1].id
                    entries = some if until_ms is None else [e for e in some if place(e.id)[0] < until_ms]
                    file.add(entries)
                    if len(entries) < len(some):
                        break
                return file.finish()
        except OSError as e:
            raise InvalidInput([Problem("--out", message=f"{out} cannot be written: {e.strerror or e}")]) from e
