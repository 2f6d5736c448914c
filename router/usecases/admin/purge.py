"""Purge a tenant: end it first, so that no new keys appear, then remove all its keys from the store.

Streams (work, results, usage, alerts, dead letters, exported audit), files and the audit log of no tenant stay: they
have retentions of their own. Settled usage is still published.
"""

from collections import Counter

from router.domain.audit.records import Actor
from router.domain.tasks.task import Action
from router.errors import InvalidInput, Problem
from router.ports.audit import ActLog
from router.ports.policies import Announcer
from router.ports.tenants import Purged, TenantStore
from router.usecases.admin.overrides import check_texts

MAX_PASSES = 5
EXCLUDED = "streams, exported audit, usage that is not published yet, and the audit log of no tenant"


class Purger:
    """Purges on behalf of `by`. A pod that misses the announcement forgets the tenant's policies within `forget_ms`."""

    def __init__(self, store: TenantStore, acts: ActLog, announcer: Announcer, by: Actor, *, forget_ms: int) -> None:
        self._store = store
        self._acts = acts
        self._announcer = announcer
        self._by = by
        self._forget_ms = forget_ms

    async def would(self, tenant_id: str) -> Purged:
        """Count what `purge` would remove now. Changes nothing.

        :raises InvalidInput: the tenant id is not valid.
        :raises StoreError: Redis did not answer.
        """
        check_texts(tenant_id)
        return await self._store.purge(tenant_id, dry_run=True)

    async def purge(self, tenant_id: str, *, confirm: str | None, why: str | None = None) -> Purged:
        """Remove all keys and record the purge in the audit log of no tenant. A repeat removes what remained, if any.

        :raises InvalidInput: the tenant id is not valid, or `confirm` differs from it.
        :raises StoreError: Redis did not answer; repeat the purge.
        """
        check_texts(tenant_id, why=why)
        if confirm != tenant_id:
            raise InvalidInput(
                [Problem("confirm", message="is not the tenant's name", hint=f"set it to {tenant_id} to purge")]
            )
        revision = await self._store.end(tenant_id, keep_ms=self._forget_ms)
        if revision is not None:
            self._announcer.policy_changed(tenant_id, revision)
        kinds: Counter[str] = Counter()
        may_remain = False
        # Work that was in flight when the tenant ended may still write keys between two passes.
        for _ in range(MAX_PASSES):
            removed = await self._store.purge(tenant_id, dry_run=False)
            kinds.update(removed.kinds)
            may_remain = may_remain or removed.answers_may_remain
            if not removed.total:
                break
        purged = Purged(dict(kinds), may_remain)
        if revision is not None or purged.total:
            details: dict[str, str | int | bool] = {"keys": purged.total, "answers_may_remain": may_remain}
            if why is not None:
                details["why"] = why
            await self._acts.record(
                action=Action.TENANT_PURGED, by=self._by, resource_type="tenant", resource_id=tenant_id, details=details
            )
        return purged
