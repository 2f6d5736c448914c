"""A policy and a row that touch every kind of a tenant's keys."""

from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, StoredPolicy, provider
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from tests.store.harness import MINUTE, Ask, policy, request

PUSHED = b"work"


def full(bound: int = 5) -> StoredPolicy:
    """A policy that uses every kind of key."""
    scopes = (Scope.TENANT, Scope.USER, Scope.POLICY, Scope.PROVIDER)
    limits = [limit(s, s, Resource.REQUESTS, bound, MINUTE) for s in scopes]
    limits.append(limit("c", Scope.TENANT, Resource.CONCURRENCY, bound, 0))
    limits.append(limit("l", Scope.TENANT, Resource.REQUESTS, bound, MINUTE, algorithm=Algorithm.LOG))
    providers = [provider(n, priority=9 - i, max_concurrency=50) for i, n in enumerate("ab")]
    return policy(*providers, limits=limits, breaker=Breaker(), sticky=Sticky())


def full_ask(tenant: str, request_id: str, bound: int = 5) -> Ask:
    """A request that uses every kind of key."""
    return Ask(request(tenant, request_id, session="s", user="u", push=True), full(bound), PUSHED)
