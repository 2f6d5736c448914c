"""`router breaker`: list circuit breakers, hold them open, reset them."""

from typing import TYPE_CHECKING

import typer

from router.cli.shared.breakers import breaker_cells, breaker_facts
from router.cli.shared.exits import Exit
from router.cli.shared.names import OnlyTenantOption, ProviderArgument, TenantOption
from router.cli.shared.output import note, print_json, print_table
from router.cli.shared.overriding import Services, WhyOption, override, print_change, with_services
from router.cli.shared.target import JsonOption, RedisOption

if TYPE_CHECKING:
    from router.domain.levers import BreakerView

app = typer.Typer(help="List circuit breakers, hold them open, reset them.", no_args_is_help=True)


@app.command("force-open")
def force_open(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Hold a provider's breaker open, on every pod at once, until it is reset."""
    changed = override(lambda o: o.force_open(tenant, provider=name, why=why), redis)
    what = f"the breaker of {tenant}/{name} is held open"
    print_change(json, changed=changed, what=what, tenant_id=tenant, provider_id=name, state="open")


@app.command()
def reset(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Close a provider's breaker, forced or tripped, and clear its counts."""
    changed = override(lambda o: o.reset(tenant, provider=name, why=why), redis)
    what = f"the breaker of {tenant}/{name} is closed"
    print_change(json, changed=changed, what=what, tenant_id=tenant, provider_id=name, state="closed")


@app.command("list")
def list_breakers(tenant: OnlyTenantOption = None, json: JsonOption = False, redis: RedisOption = None) -> None:
    """List the breakers that are open or half open. Exit code 1: there is none."""

    from router.domain.levers import BreakerState

    async def act(services: Services) -> "list[tuple[str, BreakerView]]":
        if tenant is not None:
            found = await services.inspector.breakers(tenant)
        else:
            found = [v async for page in services.inspector.all_breakers() for v in page]
        views = [v for v in found if v.state is not BreakerState.CLOSED]
        names = {t: await services.names(t) for t in {v.tenant_id for v in views}}
        return [(names[v.tenant_id].get(v.provider_entry, v.provider_entry.hex()), v) for v in views]

    found = with_services(act, redis)
    if json:
        print_json([{"tenant_id": v.tenant_id, "provider_id": name, **breaker_facts(v)} for name, v in found])
    elif found:
        rows = [(v.tenant_id, name, *breaker_cells(v)) for name, v in found]
        print_table(("tenant", "provider", "breaker", "why", "next probe"), rows)
    else:
        note("every breaker is closed")
    raise typer.Exit(Exit.OK if found else Exit.NEGATIVE)
