"""Acts about providers: their breakers and overrides."""

import asyncio

from router.chunks import chunks
from router.domain.audit.records import Actor
from router.domain.extensions.health import ExtensionRecord
from router.domain.json import JsonValue
from router.domain.levers import BreakerView
from router.domain.policy.model import provider_entry
from router.domain.roles import Role
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.act_replies import named_breaker_facts, provider_facts
from router.usecases.admin.acts.act import LEVER, PAGE, Act, AdminServices, Answer
from router.usecases.admin.overrides import named_providers
from router.usecases.admin.paging import page
from router.usecases.policies.lookups import policies_of
from router.wire.extension_views import extension_state

READ_AT_ONCE = 16


async def _breaker_states(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """List breakers of providers, and without a tenant of extensions too, in pages."""
    tenant = body.optional_tenant()
    cursor, limit = body.cursor(), body.limit()
    body.check()
    breakers: list[tuple[str, BreakerView | ExtensionRecord]] = []
    if tenant is not None:
        breakers += _keyed(await services.inspector.breakers(tenant))
    else:
        async for views in services.inspector.all_breakers(cursor.partition("/")[0]):
            breakers += [(key, view) for key, view in _keyed(views) if key > cursor]
            if len(breakers) > limit:
                break
        records = await services.extensions.records()
        # "~" is in no tenant's name and sorts after all of them.
        breakers += [(f"~/{r.name.text}", r) for r in records if r.opened_at_ms]
    shown, paging = page(breakers, cursor, limit)
    names = await _provider_names(services, sorted({v.tenant_id for v in shown if isinstance(v, BreakerView)}))
    states: list[JsonValue] = [
        named_breaker_facts(view, names[view.tenant_id]) if isinstance(view, BreakerView) else extension_state(view)
        for view in shown
    ]
    return {"states": states, **paging}


def _keyed(views: list[BreakerView]) -> list[tuple[str, BreakerView]]:
    return [(f"{v.tenant_id}/{v.provider_entry.hex()}", v) for v in views]


async def _provider_names(services: AdminServices, tenants: list[str]) -> dict[str, dict[bytes, str]]:
    """The names of each tenant's providers, by store entry. A few tenants are read at a time, beside decisions."""
    names: dict[str, dict[bytes, str]] = {}
    for group in chunks(tenants, READ_AT_ONCE):
        found = await asyncio.gather(*(policies_of(services.policies, t) for t in group))
        for tenant, policies in zip(group, found, strict=True):
            names[tenant] = {provider_entry(n): n for n in named_providers(policies)}
        await asyncio.sleep(0)
    return names


async def _list_providers(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """List a tenant's providers with their policies, levers and breakers."""
    tenant = body.tenant()
    body.check()
    return provider_facts(await services.overrides(by).providers(tenant))


async def _drain_provider(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Give a provider no new work."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).drain(tenant, provider=provider, on=True, why=why)}


async def _enable_provider(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Give a drained provider work again."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).drain(tenant, provider=provider, on=False, why=why)}


async def _force_open(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Hold a provider's breaker open until it is reset."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).force_open(tenant, provider=provider, why=why)}


async def _reset(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Close a provider's breaker, forced or tripped, and clear its counts."""
    tenant, provider, why = _lever(body)
    return {"changed": await services.overrides(by).reset(tenant, provider=provider, why=why)}


def _lever(body: ActFields) -> tuple[str, str, str | None]:
    """Tenant, provider and reason of a lever act."""
    lever = body.tenant(), body.required_text("provider_id"), body.text("why")
    body.check()
    return lever


PROVIDER_ACTS = (
    Act("get_circuit_breaker_states", Role.VIEWER, ("tenant_id", *PAGE), _breaker_states, may_be_open=True),
    Act("list_providers", Role.VIEWER, ("tenant_id",), _list_providers),
    Act("drain_provider", Role.OPERATOR, LEVER, _drain_provider),
    Act("enable_provider", Role.OPERATOR, LEVER, _enable_provider),
    Act("force_open_breaker", Role.OPERATOR, LEVER, _force_open),
    Act("reset_breaker", Role.OPERATOR, LEVER, _reset),
)
