"""Purge a tenant: it is ended first, so that nothing new comes, then all that it has in the store is removed.

Streams (work, results, usage, alerts, dead letters, exported audit), files and the log of no tenant are not touched:
they have retentions of their own. Usage that is settled is published still.
"""

from collections import Counter

from router.domain.audit import Actor
from router.domain.task import Action
from router.errors import InvalidInput, Problem
from router.ports.audit import ActLog
from router.ports.policies import Announcer
from router.ports.tenants import Purged, TenantStore
from router.usecases.admin.overrides import check_texts

MAX_PASSES = 5
EXCLUDED = "streams, exported audit, usage that is not published yet, and the audit log of no tenant"


class Purger:
    """Purges in the name of `by`. A pod that does not hear of it forgets a tenant's policies within `forget_ms`."""

    def __init__(self, store: TenantStore, acts: ActLog, announcer: Announcer, by: Actor, *, forget_ms: int) -> None:
        self._store = store
        self._acts = acts
        self._announcer = announcer
        self._by = by
        self._forget_ms = forget_ms

    async def would(self, tenant_id: str) -> Purged:
        """What `purge` would remove now. Changes nothing.

        :raises InvalidInput: no name of a tenant.
        :raises StoreError: Redis did not answer.
        """
        check_texts(tenant_id)
        return await self._store.purge(tenant_id, dry_run=True)

    async def purge(self, tenant_id: str, *, confirm: str | None, why: str | None = None) -> Purged:
        """Remove it all, and record that in the log of no tenant. A repeat finds what was left, or nothing.

        :raises InvalidInput: no name of a tenant, or `confirm` is not that name.
        :raises StoreError: Redis did not answer; purge again.
        """
        check_texts(tenant_id, why=why)
        if confirm != tenant_id:
            raise InvalidInput([Problem("confirm", "is not the tenant's name", f"say {tenant_id} to purge it")])
        revision = await self._store.end(tenant_id, keep_ms=self._forget_ms)
        if revision is not None:
            self._announcer.policy_changed(tenant_id, revision)
        kinds: Counter[str] = Counter()
        may_remain = False
        # What was on its way when the tenant was ended comes in between.
        for _ in range(MAX_PASSES):
            some = await self._store.purge(tenant_id, dry_run=False)
            kinds.update(some.kinds)
            may_remain = may_remain or some.answers_may_remain
            if not some.total:
                break
        purged = Purged(dict(kinds), may_remain)
        if revision is not None or purged.total:
            details: dict[str, str | int | bool] = {"keys": purged.total, "answers_may_remain": may_remain}
            if why is not None:
                details["why"] = why
            await self._acts.record(Action.TENANT_PURGED, self._by, "tenant", tenant_id, details)
        return purged
