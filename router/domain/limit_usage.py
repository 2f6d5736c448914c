"""How full a tenant's limits are, and how its breakers stand: what is counted, and what a look at it tells."""

from collections.abc import Iterator

from msgspec import Struct

from router.domain.policy.model import Limit, Resource, Scope, StoredPolicy, TenantPolicies


class Counter(Struct, frozen=True):
    """What counts against `maximum`, for `owner` (a policy or provider; "" the tenant).

    `limit` None: it is the provider's own bound of concurrency.
    """

    limit: Limit | None
    owner: str
    maximum: int

    @property
    def scope(self) -> Scope:
        """Who shares it."""
        return Scope.PROVIDER if self.limit is None else self.limit.scope

    @property
    def resource(self) -> Resource:
        """What it counts."""
        return Resource.CONCURRENCY if self.limit is None else self.limit.resource


class LimitUsage(Struct, frozen=True):
    """Breakers that are not closed, and units in use of each counter. What an operator holds open is forced only."""

    open: int
    half_open: int
    forced: int
    used: tuple[float, ...]


def counters_of(tenant: TenantPolicies) -> tuple[Counter, ...]:
    """Every counter that may refuse the tenant's requests, once; the strictest bound where policies share it.

    Without those of users, of whom there may be any number, and without limits in shadow mode.
    """
    found: dict[object, Counter] = {}
    for stored in tenant.policies.values():
        for c in _counters(stored):
            name = (c.scope, c.owner, None if c.limit is None else c.limit.entry)
            known = found.get(name)
            if known is None or c.maximum < known.maximum:
                found[name] = c
    return tuple(found.values())


def _counters(stored: StoredPolicy) -> Iterator[Counter]:
    policy = stored.policy
    providers = (*policy.providers, *policy.fallback_providers)
    for limit in policy.limits:
        if limit.shadow or limit.scope is Scope.USER:
            continue
        if limit.scope is Scope.PROVIDER:
            yield from (Counter(limit, p.name, limit.limit) for p in providers)
        else:
            yield Counter(limit, "" if limit.scope is Scope.TENANT else stored.policy_id, limit.limit)
    yield from (Counter(None, p.name, p.max_concurrency) for p in providers if p.max_concurrency)
