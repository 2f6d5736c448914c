"""A tenant's quota of decisions: one limit more in each of its policies, of the tenant, in the store like any other.

So it is the fleet's, exact, and costs nothing where it is not set. It bounds what a tenant may have remembered (an
answer each for 24 hours) and the records of its decisions. The documents of policies do not have it.
"""

from msgspec.structs import replace

from router.domain.policy import (
    QUOTA_ID,
    Limit,
    Memo,
    OnStoreError,
    Policy,
    Resource,
    Scope,
    StoredPolicy,
    TenantPolicies,
)
from router.domain.policy_limits import limit
from router.usecases.policy_cache import Loader

DAY_MS = 86_400_000


class WithQuota:
    """A loader whose policies have the quota of `most` decisions in 24 hours as a limit."""

    def __init__(self, loader: Loader, most: int, on_store_error: OnStoreError) -> None:
        self._loader = loader
        self._limit = limit(QUOTA_ID, Scope.TENANT, Resource.REQUESTS, most, DAY_MS, on_store_error=on_store_error)

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """As the loader, with the quota."""
        found = await self._loader.load(tenant_id)
        if found is None:
            return None
        policies = {name: _under(stored, self._limit) for name, stored in found.policies.items()}
        return replace(found, policies=policies)


def _under(stored: StoredPolicy, quota: Limit) -> StoredPolicy:
    policy: Policy = replace(stored.policy, limits=(*stored.policy.limits, quota), memo=Memo())
    return replace(stored, policy=policy)
