"""Acts about tenants: list, switch off, purge, count keys, and forget an answer."""

from router.domain.audit.records import Actor
from router.domain.json import JsonValue
from router.domain.roles import Role
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.act_replies import contents_facts, purged_facts
from router.usecases.admin.acts.act import PAGE, SWITCH, Act, AdminServices, Answer
from router.usecases.admin.paging import page


async def _list_tenants(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """List the tenants that have, or had, a policy, in pages."""
    cursor, limit = body.cursor(), body.limit()
    body.check()
    heads, paging = page(((h.tenant_id, h) for h in await services.overrides(by).tenants()), cursor, limit)
    tenants: list[JsonValue] = [{"tenant_id": h.tenant_id, "revision": h.revision, "disabled": h.off} for h in heads]
    return {"tenants": tenants, **paging}


async def _disable_tenant(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Refuse a tenant's new requests."""
    return await _switch_tenant(services, body, by, on=False)


async def _enable_tenant(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Accept a tenant's requests again."""
    return await _switch_tenant(services, body, by, on=True)


async def _switch_tenant(services: AdminServices, body: ActFields, by: Actor, *, on: bool) -> Answer:
    tenant, why = body.tenant(), body.text("why")
    body.check()
    return {"changed": await services.overrides(by).switch(tenant, on=on, why=why)}


async def _forget(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """Forget the answer to one request, named by exactly one of the two ids."""
    tenant, why = body.tenant(), body.text("why")
    request_id, key = body.text("request_id"), body.text("idempotency_key")
    body.check()
    overrides = services.overrides(by)
    return {"changed": await overrides.forget(tenant, request_id=request_id, idempotency_key=key, why=why)}


async def _show_tenant(services: AdminServices, body: ActFields, _by: Actor) -> Answer:
    """Count a tenant's keys and open tasks."""
    tenant = body.tenant()
    body.check()
    return {"tenant_id": tenant, **contents_facts(await services.tenants.contents(tenant))}


async def _purge_tenant(services: AdminServices, body: ActFields, by: Actor) -> Answer:
    """End a tenant and remove all its keys; `confirm` repeats the tenant's name."""
    tenant, dry_run = body.tenant(), body.flag("dry_run")
    confirm, why = body.text("confirm"), body.text("why")
    body.check()
    purger = services.purger(by)
    purged = await (purger.would(tenant) if dry_run else purger.purge(tenant, confirm=confirm, why=why))
    return purged_facts(tenant, purged, dry_run=dry_run)


TENANT_ACTS = (
    Act("list_tenants", Role.VIEWER, PAGE, _list_tenants),
    Act("show_tenant", Role.VIEWER, ("tenant_id",), _show_tenant),
    Act("disable_tenant", Role.OPERATOR, SWITCH, _disable_tenant),
    Act("enable_tenant", Role.OPERATOR, SWITCH, _enable_tenant),
    Act("forget_idempotency_key", Role.OPERATOR, ("tenant_id", "request_id", "idempotency_key", "why"), _forget),
    Act("purge_tenant", Role.ADMIN, ("tenant_id", "confirm", "dry_run", "why"), _purge_tenant),
)
