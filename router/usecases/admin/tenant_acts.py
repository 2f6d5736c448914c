"""Admin acts on all keys of a tenant: request body → reply body."""

from collections.abc import Callable

from router.domain.audit import Actor
from router.domain.json import JsonObject, JsonValue
from router.domain.roles import Role
from router.ports.tenants import Census, Purged, TenantStore
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.acts import Act, Answer
from router.usecases.admin.purge import EXCLUDED, Purger


class TenantActs:
    """A tenant's keys: an admin purges them, a viewer counts them. `purger` makes the purger for an actor."""

    def __init__(self, purger: Callable[[Actor], Purger], store: TenantStore) -> None:
        self._purger = purger
        self._store = store
        self.acts: dict[str, tuple[Role, Act]] = {
            "show_tenant": (Role.VIEWER, self._show),
            "purge_tenant": (Role.ADMIN, self._purge),
        }

    async def _show(self, fields: JsonObject, _by: Actor) -> Answer:
        body = ActFields(fields)
        tenant = body.tenant()
        body.check()
        return {"tenant_id": tenant, **census_facts(await self._store.census(tenant))}

    async def _purge(self, fields: JsonObject, by: Actor) -> Answer:
        body = ActFields(fields)
        tenant, dry_run = body.tenant(), body.flag("dry_run")
        confirm, why = body.text("confirm"), body.text("why")
        body.check()
        purger = self._purger(by)
        purged = await (purger.would(tenant) if dry_run else purger.purge(tenant, confirm=confirm, why=why))
        return purged_facts(tenant, purged, dry_run=dry_run)


def census_facts(census: Census) -> JsonObject:
    """A tenant's keys and open tasks as reply fields."""
    kinds: list[JsonValue] = [{"kind": k.kind, "keys": k.keys, "size_bytes": k.size_bytes} for k in census.kinds]
    return {
        "keys": kinds,
        "audit_entries": census.audit_entries,
        "open_tasks": dict(census.open_tasks),
        "whole": census.whole,
    }


def purged_facts(tenant_id: str, purged: Purged, *, dry_run: bool) -> JsonObject:
    """The keys that a purge removed, or would remove, as reply fields."""
    return {
        "tenant_id": tenant_id,
        "dry_run": dry_run,
        "keys": purged.total,
        "kinds": dict(purged.kinds),
        "answers_may_remain": purged.answers_may_remain,
        "excluded": EXCLUDED,
    }
