"""`router usage`: reconcile, and tail from its own file."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli import usage_tail
from router.cli.shared.audit_rows import moment_ms
from router.cli.shared.exits import Exit
from router.cli.shared.names import OnlyTenantOption
from router.cli.shared.output import note, print_facts, print_json, print_table
from router.cli.shared.target import JsonOption, NatsOption, RedisOption

if TYPE_CHECKING:
    from router.settings import Settings
    from router.usecases.tasks.reconcile import Reconciliation

app = typer.Typer(help="The usage that was metered.", no_args_is_help=True)
app.command()(usage_tail.tail)


@app.command()
def reconcile(
    tenant: OnlyTenantOption = None,
    since: Annotated[str, typer.Option(help="Since a time (2026-01-31T12:00Z) or an age (15m, 1h).")] = "1h",
    json: JsonOption = False,
    nats: NatsOption = None,
    redis: RedisOption = None,
) -> None:
    """Prove from the streams that every settled success was metered exactly once.

    Reads RESULT and USAGE in batches and changes nothing. Exit code 1: an event is missing, doubled or unearned.
    """
    import asyncio

    import msgspec

    from router.cli.shared.target import settings_for

    settings = settings_for(nats=nats, redis=redis)
    found = asyncio.run(_reconcile(settings, moment_ms(since, option="--since") or 0, tenant))
    if json:
        print_json(msgspec.to_builtins(found) | {"ok": not found.findings})
    else:
        _show(found)
    raise typer.Exit(Exit.NEGATIVE if found.findings else Exit.OK)


async def _reconcile(settings: "Settings", since_ms: int, tenant: str | None) -> "Reconciliation":
    from router.bus.streams.history import StreamHistory
    from router.cli.shared.bus import open_bus
    from router.cli.shared.connections import open_store
    from router.store.decisions import RedisAnswers
    from router.store.tasks.store import RedisTasks
    from router.usecases.tasks.reconcile import reconcile
    from router.wire import subjects

    async with open_store(settings) as store, open_bus(settings) as bus:
        return await reconcile(
            StreamHistory(
                bus, settings.stream_result_name, subjects=(subjects.RESULT, subjects.every_tenant(subjects.RESULT))
            ),
            usage=StreamHistory(bus, settings.stream_usage_name, subjects=(subjects.USAGE,)),
            tasks=RedisTasks(store.keys, store.nodes),
            answers=RedisAnswers(store.keys, store.nodes),
            since_ms=since_ms,
            tenant_id=tenant,
        )


def _show(found: "Reconciliation") -> None:
    print_facts(
        [
            ("results read", found.results),
            ("successes", found.successes),
            ("settled", found.settled),
            ("refused (late, or the task ended otherwise)", found.refused or None),
            ("not settled yet", found.in_progress or None),
            ("no longer known", found.forgotten or None),
            ("unreadable", found.unreadable or None),
            ("usage events", found.usage),
            ("in the outbox", found.waiting),
        ]
    )
    if found.findings:
        rows = [(f.what, f.usage_id, f.tenant_id, f.request_id, f.times) for f in found.findings]
        print_table(("what", "usage", "tenant", "request", "times"), rows, whole=("usage",))
        note(f"{len(found.findings)} events are wrong")
    else:
        note("every settled success was metered once")
