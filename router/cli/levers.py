"""Operators' levers: `router provider`, `router breaker`, `router tenant`, `router idempotency`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.audit_rows import moment
from router.cli.shared.exits import Exit
from router.cli.shared.names import OnlyTenantOption, ProviderArgument, TenantArgument, TenantOption
from router.cli.shared.output import note, print_json, print_table
from router.cli.shared.overriding import Services, override, with_services
from router.cli.shared.target import JsonOption, RedisOption

if TYPE_CHECKING:
    from router.domain.levers import BreakerView
    from router.usecases.admin.overrides import ProviderView

providers = typer.Typer(help="Drain a tenant's providers, and enable them again.", no_args_is_help=True)
breakers = typer.Typer(help="List circuit breakers, hold them open, reset them.", no_args_is_help=True)
tenants = typer.Typer(help="List tenants, disable, enable and purge them.", no_args_is_help=True)
answers = typer.Typer(help="Forget stored answers.", no_args_is_help=True)

WhyOption = Annotated[str | None, typer.Option("--why", help="The reason, for the audit log.")]


@providers.command()
def drain(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Stop new work for a provider, on every pod at once. Running tasks may finish."""
    changed = override(lambda o: o.drain(tenant, name, on=True, why=why), redis)
    _told(json, changed, f"{tenant}/{name} is drained", tenant_id=tenant, provider_id=name, drained=True)


@providers.command()
def enable(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Let a drained provider have work again."""
    changed = override(lambda o: o.drain(tenant, name, on=False, why=why), redis)
    _told(json, changed, f"{tenant}/{name} is not drained", tenant_id=tenant, provider_id=name, drained=False)


@providers.command("list")
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
        (p.name, ", ".join(p.policies), "drained" if p.drained else "", *_breaker_cells(p.breaker))
        for p in found.providers
    ]
    print_table(("provider", "policies", "lever", "breaker", "why", "next probe"), rows)


@breakers.command("force-open")
def force_open(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Hold a provider's breaker open, on every pod at once, until it is reset."""
    changed = override(lambda o: o.force_open(tenant, name, why=why), redis)
    what = f"the breaker of {tenant}/{name} is held open"
    _told(json, changed, what, tenant_id=tenant, provider_id=name, state="open")


@breakers.command()
def reset(
    name: ProviderArgument,
    tenant: TenantOption,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Close a provider's breaker, forced or tripped, and clear its counts."""
    changed = override(lambda o: o.reset(tenant, name, why=why), redis)
    what = f"the breaker of {tenant}/{name} is closed"
    _told(json, changed, what, tenant_id=tenant, provider_id=name, state="closed")


@breakers.command("list")
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
        print_json([{"tenant_id": v.tenant_id, "provider_id": name, **_breaker_facts(v)} for name, v in found])
    elif found:
        rows = [(v.tenant_id, name, *_breaker_cells(v)) for name, v in found]
        print_table(("tenant", "provider", "breaker", "why", "next probe"), rows)
    else:
        note("every breaker is closed")
    raise typer.Exit(Exit.OK if found else Exit.NEGATIVE)


@tenants.command()
def disable(name: TenantArgument, why: WhyOption = None, json: JsonOption = False, redis: RedisOption = None) -> None:
    """Refuse new requests of a tenant, on every pod at once. Stored answers and running tasks stay."""
    changed = override(lambda o: o.switch(name, on=False, why=why), redis)
    _told(json, changed, f"{name} is disabled", tenant_id=name, disabled=True)


@tenants.command("enable")
def enable_tenant(
    name: TenantArgument, why: WhyOption = None, json: JsonOption = False, redis: RedisOption = None
) -> None:
    """Accept requests of a tenant again."""
    changed = override(lambda o: o.switch(name, on=True, why=why), redis)
    _told(json, changed, f"{name} is enabled", tenant_id=name, disabled=False)


@tenants.command("list")
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


@answers.command()
def forget(
    tenant: TenantOption,
    request_id: Annotated[
        str | None, typer.Option(help="The request_id, if the request had no idempotency key.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The idempotency_key.")] = None,
    why: WhyOption = None,
    json: JsonOption = False,
    redis: RedisOption = None,
) -> None:
    """Forget the answer to one request; its repeat is a new request. Exit code 1: no answer is stored."""
    forgotten = override(lambda o: o.forget(tenant, request_id=request_id, idempotency_key=key, why=why), redis)
    called = request_id or key
    if json:
        print_json({"tenant_id": tenant, "forgotten": forgotten, "request_id": request_id, "idempotency_key": key})
    elif forgotten:
        typer.echo(f"the answer to {called} is forgotten; charges and running tasks stay")
    else:
        note(f"no answer to {called} is stored for {tenant}")
    raise typer.Exit(Exit.OK if forgotten else Exit.NEGATIVE)


def _told(json: bool, changed: bool, what: str, **facts: object) -> None:
    if json:
        print_json(facts | {"changed": changed})
    else:
        typer.echo(what if changed else f"{what} already; nothing was changed")


def _provider_facts(view: "ProviderView") -> dict[str, Any]:
    return {
        "provider_id": view.name,
        "policies": view.policies,
        "drained": view.drained,
        "breaker": None if view.breaker is None else _breaker_facts(view.breaker),
    }


def _breaker_facts(view: "BreakerView") -> dict[str, Any]:
    return {
        "state": view.state.value,
        "forced": view.forced,
        "reason": view.why,
        "opened_at_ms": view.opened_at_ms or None,
        "next_probe_at_ms": view.next_probe_at_ms or None,
    }


def _breaker_cells(view: "BreakerView | None") -> tuple[str, str | None, str]:
    if view is None:
        return "closed", None, ""
    return view.state.value, view.why, moment(view.next_probe_at_ms * 1000) if view.next_probe_at_ms else ""
