"""Look-ups in a tenant's current policies."""

from router.domain.policy.model import Breaker, Policy, TenantPolicies
from router.ports.policies import Loading, PolicyLookup


async def policies_of(policies: PolicyLookup, tenant_id: str) -> TenantPolicies | None:
    """Return the tenant's policies, from the cache if possible.

    :raises StoreError: they are not cached, and the store did not answer.
    """
    cached = policies.get(tenant_id)
    return await policies.load(tenant_id) if isinstance(cached, Loading) else cached


def policy_of(policies: TenantPolicies | None, policy_id: str) -> Policy | None:
    """Return a policy, or None if it does not exist."""
    stored = None if policies is None else policies.policies.get(policy_id)
    return None if stored is None else stored.policy


def breaker_of(policies: TenantPolicies | None, policy_id: str) -> Breaker | None:
    """Return the policy's breaker settings, or None if it has none or does not exist."""
    policy = policy_of(policies, policy_id)
    return None if policy is None else policy.breaker
