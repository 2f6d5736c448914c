"""`router provider`: drain and enable a tenant's providers."""

from typing import TYPE_CHECKING, Any

import typer

from router.cli.shared.breakers import breaker_cells, breaker_facts
from router.cli.shared.names import ProviderArgument, TenantOption
from router.cli.shared.output import note, print_json, print_table
from router.cli.shared.overriding import WhyOption, override, print_change
from router.cli.shared.target import JsonOption, RedisOption

if TYPE_CHECKING:
    from router.usecases.admin.overrides import ProviderView

app = typer.Typer(help="Drain a tenant's providers, and enable them again.", no_args_is_help=True)


@app.command()
def drain(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Stop new work for a provider, on every pod at once. Running tasks may finish."""
    changed = override(lambda o: o.drain(tenant, provider=name, on=True, why=why), redis)
    print_change(
        json, changed=changed, what=f"{tenant}/{name} is drained", tenant_id=tenant, provider_id=name, drained=True
    )


@app.command()
def enable(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Let a drained provider have work again."""
    changed = override(lambda o: o.drain(tenant, provider=name, on=False, why=why), redis)
    print_change(
        json, changed=changed, what=f"{tenant}/{name} is not drained", tenant_id=tenant, provider_id=name, drained=False
    )


@app.command("list")
def list_providers(tenant: TenantOption, json: JsonOption = False, redis: RedisOption = None) -> None:
    """List a tenant's providers: the policies that name them, whether they are drained, and their breakers."""
    found = override(lambda o: o.providers(tenant), redis)
    if json:
        print_json(
            {"tenant_id": tenant, "disabled": found.off, "providers": [_provider_facts(p) for p in found.providers]}
        )
        return
    if found.off:
        note(f"{tenant} is disabled: new requests are refused")
    rows = [
        (p.name, ", ".join(p.policies), "drained" if p.drained else "", *breaker_cells(p.breaker))
        for p in found.providers
    ]
    print_table(("provider", "policies", "lever", "breaker", "why", "next probe"), rows)


def _provider_facts(view: "ProviderView") -> dict[str, Any]:
    return {
        "provider_id": view.name,
        "policies": view.policies,
        "drained": view.drained,
        "breaker": None if view.breaker is None else breaker_facts(view.breaker),
    }
