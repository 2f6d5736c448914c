"""How full a tenant's limits are and how its breakers stand: the counters, and one reading of them."""

from collections.abc import Iterator
from typing import assert_never

from msgspec import Struct

from router.domain.policy.model import Limit, Resource, Scope, StoredPolicy, TenantPolicies


class Counter(Struct, frozen=True):
    """A counter with its bound `maximum`, for `owner` (a policy or provider; "" is the tenant).

    `limit` None: the provider's own concurrency bound.
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
        """The resource that it counts."""
        return Resource.CONCURRENCY if self.limit is None else self.limit.resource


class LimitUsage(Struct, frozen=True):
    """One reading: breakers that are not closed, and units in use of each counter. A breaker that an operator holds
    open counts as forced only.
    """

    open: int
    half_open: int
    forced: int
    used: tuple[float, ...]


def counters_of(tenant: TenantPolicies) -> tuple[Counter, ...]:
    """Every counter that may refuse the tenant's requests, once; where policies share one, its strictest bound.

    Without counters of users, whose number is unbounded, and without limits in shadow mode.
    """
    found: dict[object, Counter] = {}
    for stored in tenant.policies.values():
        for c in _counters(stored):
            name = (c.scope, c.owner, None if c.limit is None else c.limit.entry)
            counter = found.get(name)
            if counter is None or c.maximum < counter.maximum:
                found[name] = c
    return tuple(found.values())


def _counters(stored: StoredPolicy) -> Iterator[Counter]:
    policy = stored.policy
    providers = (*policy.providers, *policy.fallback_providers)
    for limit in policy.limits:
        if limit.shadow:
            continue
        match limit.scope:
            case Scope.USER:
                pass  # any number of them
            case Scope.PROVIDER:
                yield from (Counter(limit, p.name, limit.limit) for p in providers)
            case Scope.TENANT:
                yield Counter(limit, "", limit.limit)
            case Scope.POLICY:
                yield Counter(limit, stored.policy_id, limit.limit)
            case _:
                assert_never(limit.scope)
    yield from (Counter(None, p.name, p.max_concurrency) for p in providers if p.max_concurrency)
