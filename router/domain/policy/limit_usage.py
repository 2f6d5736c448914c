"""The use of a tenant's limits and the state of its breakers: which counters to measure, and one measurement."""

from collections.abc import Iterator
from typing import assert_never

from msgspec import Struct

from router.domain.policy.model import Limit, StoredPolicy, TenantPolicies
from router.domain.policy.vocabulary import Resource, Scope


class Counter(Struct, frozen=True):
    """A counter with its bound `maximum`. `owner`: the policy or provider that it counts; "": the tenant.

    `limit` None: the counter is that of the provider's own bound `max_concurrency`.
    """

    limit: Limit | None
    owner: str
    maximum: int

    @property
    def scope(self) -> Scope:
        """The scope of the limit."""
        return Scope.PROVIDER if self.limit is None else self.limit.scope

    @property
    def resource(self) -> Resource:
        """The resource that is counted."""
        return Resource.CONCURRENCY if self.limit is None else self.limit.resource


class LimitUsage(Struct, frozen=True, kw_only=True):
    """One measurement: the number of breakers in each state but closed, and the units in use of each counter.

    A breaker that an operator holds open is counted in `forced` only.
    """

    open: int
    half_open: int
    forced: int
    used: tuple[float, ...]


def counters_of(tenant: TenantPolicies) -> tuple[Counter, ...]:
    """List the counters that may refuse requests of the tenant. If policies share a counter, its strictest bound
    counts.

    Limits in shadow mode refuse nothing, and the number of user counters is unbounded, so both are left out.
    """
    strictest: dict[object, Counter] = {}
    for stored in tenant.policies.values():
        for c in _counters(stored):
            name = (c.scope, c.owner, None if c.limit is None else c.limit.entry)
            counter = strictest.get(name)
            if counter is None or c.maximum < counter.maximum:
                strictest[name] = c
    return tuple(strictest.values())


def _counters(stored: StoredPolicy) -> Iterator[Counter]:
    policy = stored.policy
    providers = (*policy.providers, *policy.fallback_providers)
    for limit in policy.limits:
        if limit.shadow:
            continue
        match limit.scope:
            case Scope.USER:
                pass  # the number of users is unbounded
            case Scope.PROVIDER:
                yield from (Counter(limit, p.name, limit.limit) for p in providers)
            case Scope.TENANT:
                yield Counter(limit, "", limit.limit)
            case Scope.POLICY:
                yield Counter(limit, stored.policy_id, limit.limit)
            case _:
                assert_never(limit.scope)
    yield from (Counter(None, p.name, p.max_concurrency) for p in providers if p.max_concurrency)
