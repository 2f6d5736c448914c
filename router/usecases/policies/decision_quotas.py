"""A tenant's quotas of decisions and of audit records: limits more in each of its policies, of the tenant, in the store
like any other.

So they are the fleet's, exact, and cost nothing where they are not set. The documents of policies do not have them.

`requests` bounds what a tenant may have remembered (an answer each for 24 hours). `audit_rate` bounds what its requests
write to its log: decisions and refusals alike. A request beyond it is refused, and its refusal is counted instead of
recorded (`unrecorded`).
"""

from msgspec import Struct
from msgspec.structs import replace

from router.domain.plan_cache import PlanCache
from router.domain.policy.limits import limit
from router.domain.policy.model import (
    AUDIT_QUOTA_ID,
    QUOTA_ID,
    Limit,
    OnStoreError,
    Resource,
    Scope,
    StoredPolicy,
    TenantPolicies,
)
from router.ports.policies import Loader

DAY_MS = 86_400_000
AUDIT_WINDOW_MS = 10_000


class DecisionQuotas(Struct, frozen=True):
    """`requests` in 24 hours, `audit_rate` a second over ten of them; None: as many as there are."""

    requests: int | None = None
    audit_rate: int | None = None


class WithQuotas:
    """A loader whose policies have these quotas as limits. `on_store_error`: what a policy without a limit does."""

    def __init__(self, loader: Loader, quotas: DecisionQuotas, on_store_error: OnStoreError) -> None:
        self._loader = loader
        self._quotas = quotas
        self._on_store_error = on_store_error

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """As the loader, with the quotas."""
        found = await self._loader.load(tenant_id)
        if found is None or self._quotas == _NONE:
            return found
        return replace(found, policies={name: self._under(stored) for name, stored in found.policies.items()})

    def _under(self, stored: StoredPolicy) -> StoredPolicy:
        limits = list(stored.policy.limits)
        if self._quotas.requests is not None:
            limits.append(_quota(QUOTA_ID, self._quotas.requests, DAY_MS, self._on_store_error))
        if self._quotas.audit_rate is not None:
            # Without the store there is no record either: the policy's own limits say whether to answer.
            alone = all(x.shadow for x in limits)
            maximum = self._quotas.audit_rate * AUDIT_WINDOW_MS // 1000
            otherwise = self._on_store_error if alone else OnStoreError.ALLOW
            limits.append(_quota(AUDIT_QUOTA_ID, maximum, AUDIT_WINDOW_MS, otherwise))
        return replace(stored, policy=replace(stored.policy, limits=tuple(limits), memo=PlanCache()))


_NONE = DecisionQuotas()


def _quota(name: str, maximum: int, window_ms: int, on_store_error: OnStoreError) -> Limit:
    return limit(name, Scope.TENANT, Resource.REQUESTS, maximum, window_ms, on_store_error=on_store_error)
