"""A tenant's quotas of decisions and audit records, as extra tenant-wide limits in each of its policies.

The store counts them like any other limit: fleet-wide and exact, and without cost if they are not set. They are added
on load and are not part of policy documents.

`requests` bounds the number of remembered answers (each is kept for 24 hours). `audit_rate` bounds the audit records of
a tenant's requests, decisions and refusals alike. A request beyond it is refused, and that refusal is counted instead
of recorded (`usecases.audit.unrecorded_refusals`).
"""

from msgspec import Struct
from msgspec.structs import replace

from router.domain.policy.limits import limit
from router.domain.policy.model import AUDIT_QUOTA_ID, QUOTA_ID, Limit, StoredPolicy, TenantPolicies
from router.domain.policy.plan_cache import PlanCache
from router.domain.policy.vocabulary import OnStoreError, Resource, Scope
from router.ports.policies import Loader

DAY_MS = 86_400_000
AUDIT_WINDOW_MS = 10_000


class DecisionQuotas(Struct, frozen=True):
    """`requests` in 24 hours; `audit_rate` per second, averaged over 10 s. None: unlimited."""

    requests: int | None = None
    audit_rate: int | None = None


class WithQuotas:
    """A loader that adds the quotas as limits. `on_store_error` applies to policies without limits of their own."""

    def __init__(self, loader: Loader, quotas: DecisionQuotas, on_store_error: OnStoreError) -> None:
        self._loader = loader
        self._quotas = quotas
        self._on_store_error = on_store_error

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Load the tenant's policies and add the quotas."""
        policies = await self._loader.load(tenant_id)
        if policies is None or self._quotas == _NONE:
            return policies
        return replace(
            policies, policies={name: self._with_limits(stored) for name, stored in policies.policies.items()}
        )

    def _with_limits(self, stored: StoredPolicy) -> StoredPolicy:
        limits = list(stored.policy.limits)
        if self._quotas.requests is not None:
            limits.append(
                _quota(QUOTA_ID, self._quotas.requests, window_ms=DAY_MS, on_store_error=self._on_store_error)
            )
        if self._quotas.audit_rate is not None:
            # Without the store nothing is audited either, so the policy's own limits decide whether to answer.
            no_own_limit = all(x.shadow for x in limits)
            maximum = self._quotas.audit_rate * AUDIT_WINDOW_MS // 1000
            without_store = self._on_store_error if no_own_limit else OnStoreError.ALLOW
            limits.append(_quota(AUDIT_QUOTA_ID, maximum, window_ms=AUDIT_WINDOW_MS, on_store_error=without_store))
        return replace(stored, policy=replace(stored.policy, limits=tuple(limits), plan_cache=PlanCache()))


_NONE = DecisionQuotas()


def _quota(name: str, maximum: int, *, window_ms: int, on_store_error: OnStoreError) -> Limit:
    return limit(
        id_=name,
        scope=Scope.TENANT,
        resource=Resource.REQUESTS,
        maximum=maximum,
        window_ms=window_ms,
        on_store_error=on_store_error,
    )
