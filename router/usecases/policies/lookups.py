"""Look-ups in a tenant's policies as they are now."""

from router.domain.policy.model import Breaker, Policy, TenantPolicies
from router.ports.policies import Loading, PolicyLookup


async def policies_of(policies: PolicyLookup, tenant_id: str) -> TenantPolicies | None:
    """The tenant's policies, from the cache if they are there.

    :raises StoreError: they are not, and the store did not answer.
    """
    known = policies.get(tenant_id)
    return await policies.load(tenant_id) if isinstance(known, Loading) else known


def policy_of(policies: TenantPolicies | None, policy_id: str) -> Policy | None:
    """A policy as it is now; None when it is gone."""
    stored = None if policies is None else policies.policies.get(policy_id)
    return None if stored is None else stored.policy


def breaker_of(policies: TenantPolicies | None, policy_id: str) -> Breaker | None:
    """The breaker's figures as the policy has them now; None when it has none (any more)."""
    policy = policy_of(policies, policy_id)
    return None if policy is None else policy.breaker
