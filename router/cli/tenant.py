"""`router tenant`: list, show, disable, enable and purge tenants."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.exits import Exit
from router.cli.shared.names import TenantArgument
from router.cli.shared.output import note, print_facts, print_json, print_table
from router.cli.shared.overriding import WhyOption, override, print_change, with_services
from router.cli.shared.publishing import Changes, announced
from router.cli.shared.target import JsonOption, NatsOption, RedisOption, settings_for
from router.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from router.cli.shared.overriding import Services
    from router.ports.tenants import Purged
    from router.settings import Settings

app = typer.Typer(help="List tenants, disable, enable and purge them.", no_args_is_help=True)


@app.command()
def disable(name: TenantArgument, why: WhyOption = None, json: JsonOption = False, redis: RedisOption = None) -> None:
    """Refuse new requests of a tenant, on every pod at once. Stored answers and running tasks stay."""
    changed = override(lambda o: o.switch(name, on=False, why=why), redis)
    print_change(json, changed=changed, what=f"{name} is disabled", tenant_id=name, disabled=True)


@app.command("enable")
def enable_tenant(
    name: TenantArgument, why: WhyOption = None, json: JsonOption = False, redis: RedisOption = None
) -> None:
    """Accept requests of a tenant again."""
    changed = override(lambda o: o.switch(name, on=True, why=why), redis)
    print_change(json, changed=changed, what=f"{name} is enabled", tenant_id=name, disabled=False)


@app.command("list")
def list_tenants(json: JsonOption = False, redis: RedisOption = None) -> None:
    """List the tenants that have, or had, a policy. Exit code 1: there is none."""
    heads = override(lambda o: o.tenants(), redis)
    facts = [
        {
            "tenant_id": h.tenant_id,
            "revision": h.revision,
            "disabled": h.off,
            "drained": len(h.drained),
            "forced_open": len(h.forced),
        }
        for h in heads
    ]
    if json:
        print_json(facts)
    elif facts:
        rows = [(h.tenant_id, h.revision, "disabled" if h.off else "", len(h.drained), len(h.forced)) for h in heads]
        print_table(("tenant", "revision", "switch", "drained", "forced open"), rows)
    else:
        note("no tenant has a policy yet")
    raise typer.Exit(Exit.OK if facts else Exit.NEGATIVE)


@app.command()
def show(name: TenantArgument, json: JsonOption = False, redis: RedisOption = None) -> None:
    """Show a tenant in the store: policies, levers, breakers, keys by kind, open tasks. Exit code 1: it has nothing."""
    facts = with_services(lambda services: _facts(services, name), redis)
    if json:
        print_json(facts)
    else:
        _show(facts)
    raise typer.Exit(Exit.OK if facts["keys"] else Exit.NEGATIVE)


async def _facts(services: "Services", name: str) -> dict[str, Any]:
    from router.domain.levers import BreakerState
    from router.usecases.admin.act_replies import contents_facts
    from router.usecases.policies.publish import check_ids

    check_ids(name)
    heads = await services.inspector.heads(name)
    names = await services.names(name)
    policies = await services.policies.load(name)
    breakers = [b for b in await services.inspector.breakers(name) if b.state is not BreakerState.CLOSED]
    return {
        "tenant_id": name,
        "revision": heads[0].revision if heads else None,
        "disabled": heads[0].off if heads else False,
        "policies": [] if policies is None else sorted(policies.policies),
        "drained": sorted(names.get(e, e.hex()) for h in heads for e in h.drained),
        "forced_open": sorted(names.get(e, e.hex()) for h in heads for e in h.forced),
        "breakers": {names.get(b.provider_entry, b.provider_entry.hex()): b.state.value for b in breakers},
        **contents_facts(await services.tenants.contents(name)),
    }


def _show(facts: dict[str, Any]) -> None:
    if not facts["keys"]:
        note(f"{facts['tenant_id']} has nothing in this store")
        return
    shown = ("tenant_id", "revision", "policies", "drained", "forced_open", "breakers", "audit_entries", "open_tasks")
    listed = {k: facts[k] if facts[k] not in ([], {}) else None for k in shown}
    listed["disabled"] = "yes: new requests are refused" if facts["disabled"] else None
    print_facts((k, ", ".join(v) if isinstance(v, list) else v) for k, v in listed.items())
    rows = [(k["kind"], f"{k['keys']:,}", f"{k['size_bytes']:,}") for k in facts["keys"]]
    total = sum(k["size_bytes"] for k in facts["keys"])
    print_table(("kind", "keys", "bytes"), [*rows, ("all", f"{sum(k['keys'] for k in facts['keys']):,}", f"{total:,}")])
    if not facts["whole"]:
        note("the tenant has more keys than one call reads: the figures are a lower bound")


@app.command()
def purge(
    name: TenantArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
    nats: NatsOption = None,
) -> None:
    """Remove everything that the store holds of a tenant, for good. Exit code 1: there is nothing.

    Streams and exported audit stay for their own retention. Settled usage is still published.
    """
    confirm = name if yes or dry_run else _asked(name)
    purged = asyncio.run(_purge(settings_for(redis=redis, nats=nats), name, confirm=confirm, why=why, dry_run=dry_run))
    if json:
        from router.usecases.admin.act_replies import purged_facts

        print_json(purged_facts(name, purged, dry_run=dry_run))
    else:
        _print_purged(name, purged, dry_run=dry_run)
    raise typer.Exit(Exit.OK if purged.total else Exit.NEGATIVE)


def _asked(name: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidInput(
            [
                Problem(
                    "--yes",
                    message="is missing, and there is no terminal to ask for confirmation",
                    hint=f"say --yes to purge {name}",
                )
            ]
        )
    answer: str = typer.prompt(
        f"Everything of {name} will be removed. Type the tenant's name to continue", default="", err=True
    )
    return answer


async def _purge(settings: "Settings", name: str, *, confirm: str, why: str | None, dry_run: bool) -> "Purged":
    from router.app.adapter_settings import audit_ms, forget_ms
    from router.cli.shared.connections import open_store
    from router.domain.audit.records import Actor
    from router.store.levers import RedisLevers, lever_scripts
    from router.store.tenants.walk import RedisTenants
    from router.usecases.admin.purge import Purger

    changes = Changes()
    async with open_store(settings) as store:
        acts = RedisLevers(store.keys, store.nodes, lever_scripts(), audit_ms=audit_ms(settings))
        by = Actor(principal=settings.principal)
        tenants = RedisTenants(store.keys, store.nodes, store.replicas)
        purger = Purger(tenants, acts, changes, by, forget_ms=forget_ms(settings))
        if dry_run:
            return await purger.would(name)
        purged = await purger.purge(name, confirm=confirm, why=why)
    await announced(settings, changes)
    return purged


def _print_purged(name: str, purged: "Purged", *, dry_run: bool) -> None:
    if not purged.total:
        note(f"{name} has nothing in this store")
        return
    print_table(("kind", "keys"), [(kind, f"{n:,}") for kind, n in sorted(purged.kinds.items())])
    typer.echo(f"{name}: {purged.total:,} keys " + ("would go" if dry_run else "are gone"))
    if purged.answers_may_remain:
        note("its audit log was cut within a day, so older stored answers cannot be found: they expire within 24 hours")
    note("not touched: streams, exported audit, the audit log of no tenant; settled usage is still published")
