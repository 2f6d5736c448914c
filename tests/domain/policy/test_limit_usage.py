"""Which counters a tenant's policies have."""

from router.domain.policy.limit_usage import Counter, counters_of
from router.domain.policy.limits import limit
from router.domain.policy.model import Limit, Policy, StoredPolicy, TenantPolicies, provider
from router.domain.policy.vocabulary import Resource, Scope


def of(*policies: Policy) -> tuple[Counter, ...]:
    """The counters of a tenant with these policies, p0, p1, …"""
    stored = {f"p{i}": StoredPolicy(f"p{i}", 1, "", p) for i, p in enumerate(policies)}
    return counters_of(TenantPolicies("t", 1, bytes(8), stored))


def requests(scope: Scope, maximum: int = 10, *, shadow: bool = False) -> Limit:
    """A limit on requests."""
    return limit("l", scope, Resource.REQUESTS, maximum, 60_000, shadow=shadow)


def test_policies_share_a_tenants_counter() -> None:
    """It is told once, against the bound that refuses first."""
    a = Policy((provider("a"),), limits=(requests(Scope.TENANT, 10),))
    b = Policy((provider("a"),), limits=(requests(Scope.TENANT, 5),))
    assert of(a, b) == of(b, a) == (Counter(requests(Scope.TENANT, 5), "", 5),)


def test_each_policy_and_provider_has_its_own() -> None:
    """Fallback providers too; a provider that several policies name is one."""
    limits = (requests(Scope.POLICY), requests(Scope.PROVIDER))
    a = Policy((provider("a"),), fallback_providers=(provider("z"),), limits=limits)
    b = Policy((provider("a"), provider("b")), limits=limits)
    assert [(c.scope, c.owner) for c in of(a, b)] == [
        (Scope.POLICY, "p0"),
        (Scope.PROVIDER, "a"),
        (Scope.PROVIDER, "z"),
        (Scope.POLICY, "p1"),
        (Scope.PROVIDER, "b"),
    ]


def test_users_and_shadow_limits_are_left_out() -> None:
    """The first are any number, the second refuse nobody."""
    assert of(Policy((), limits=(requests(Scope.USER), requests(Scope.TENANT, shadow=True)))) == ()


def test_a_providers_own_bound_is_a_counter() -> None:
    """Of concurrency, like a limit's."""
    (only,) = of(Policy((provider("a", max_concurrency=3), provider("b"))))
    assert (only.scope, only.resource, only.owner, only.maximum) == (Scope.PROVIDER, Resource.CONCURRENCY, "a", 3)
