"""A tenant's policies, compiled for `domain.decide.plan`. Costs are integer micro-USD, durations are milliseconds."""

from hashlib import blake2b

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from router.domain.json import JsonObject
from router.domain.levers import NO_HEAD, TenantHead
from router.domain.policy.plan_cache import PlanCache
from router.domain.policy.vocabulary import (
    Algorithm,
    OnFail,
    OnStoreError,
    Resource,
    Scope,
    Selection,
    Strategy,
    WhenAllOpen,
)

DEFAULT_POLICY_ID = "default"
DEFAULT_ATTEMPTS = 2
ENTRY_BYTES = 8


def entry_id(*parts: str) -> bytes:
    """The 8-byte id of an entry in a state string.

    Entries are found by id and never by position, so two revisions of a policy can use the same string.
    """
    return blake2b("\0".join(parts).encode(), digest_size=ENTRY_BYTES).digest()


def provider_entry(name: str) -> bytes:
    """The entry id of a provider's breaker and levers."""
    return entry_id("provider", name)


class Provider(Struct, frozen=True):
    """A provider. `entry`: the id of its breaker and levers; `seed`: its seed in the rendezvous hash.

    `max_concurrency` 0: unbounded.
    """

    name: str
    weight: float
    entry: bytes
    seed: int
    priority: int = 0
    expected_latency_ms: int = 0
    expected_cost_microusd: int = 0
    max_concurrency: int = 0
    endpoint: str | None = None


def provider(
    name: str,
    weight: float = 100,
    *,
    priority: int = 0,
    expected_latency_ms: int = 0,
    expected_cost_microusd: int = 0,
    max_concurrency: int = 0,
    endpoint: str | None = None,
) -> Provider:
    """Build a provider with its derived entry and seed."""
    entry = provider_entry(name)
    return Provider(
        name=name,
        weight=weight,
        entry=entry,
        seed=int.from_bytes(entry),
        priority=priority,
        expected_latency_ms=expected_latency_ms,
        expected_cost_microusd=expected_cost_microusd,
        max_concurrency=max_concurrency,
        endpoint=endpoint,
    )


QUOTA_ID, AUDIT_QUOTA_ID = "~requests", "~audit"
"""The limits that the fleet's settings add to every policy, in this order. No document can use these ids."""


class Limit(Struct, frozen=True):
    """At most `limit` units of `resource` in any window of `window_ms`.

    `entry` identifies the counter; it is a hash of id, window, scope and resource. A changed bound therefore keeps the
    usage, and a changed window starts a new counter.
    """

    id: str
    scope: Scope
    resource: Resource
    limit: int
    window_ms: int
    entry: bytes
    algorithm: Algorithm = Algorithm.SLIDING
    shadow: bool = False
    on_store_error: OnStoreError = OnStoreError.DENY
    default_estimate: int = 0


class Sticky(Struct, frozen=True):
    """Pins: requests with the same `context[session_key]` go to the same provider while that provider is fit."""

    session_key: str = "session_id"
    ttl_ms: int = 600_000


class Backoff(Struct, frozen=True):
    """The delay before a retry: base · 2ⁿ (exponential), base · n (linear) or base (fixed), at most max."""

    strategy: Strategy = Strategy.EXPONENTIAL
    base_ms: int = 200
    max_ms: int = 30_000
    jitter: bool = True


class Fallback(Struct, frozen=True):
    """A fallback rule: which provider to use after a failure.

    The rule matches if `statuses` (empty: any failure) and all `attributes` match. `to` is used after `retry` tries on
    the failed provider.
    """

    to: str
    statuses: tuple[str, ...] = ()
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    retry: int = 1
    backoff: Backoff | None = None


class Breaker(Struct, frozen=True):
    """The settings of the providers' breakers: when one opens, when it is probed, and when it closes."""

    failure_threshold: int = 5
    error_rate_threshold: float = 0.5
    error_rate_window_ms: int = 60_000
    minimum_requests: int = 10
    timeout_ms: int = 60_000
    success_threshold: int = 2
    half_open_max_calls: int = 3
    when_all_open: WhenAllOpen = WhenAllOpen.FAIL


class Extension(Struct, frozen=True):
    """An extension that requests call over NATS. `required` is for `pre` and `post`, `on_fail` for validators."""

    id: str
    required: bool = False
    on_fail: OnFail = OnFail.IGNORE
    when: JsonObject = {}
    config: JsonObject = {}
    timeout_ms: int = 1000
    retry: int = 0


class Policy(Struct, frozen=True):
    """A compiled policy.

    `fallback_providers`: every provider that a rule leads to, once, in the order of the rules.

    These fields are derived from the others; values that are passed in are ignored:

    - `reserves`: results give something back: tokens, cost or a concurrency lease.
    - `pool`: the providers with a weight above 0. `shares`: rank, weight, seed and index of each (`figures.Share`).
    - `charges_vary`: charges depend on the user or the candidates.
    - `has_attributes`: some fallback rules compare attributes of the request.
    - `attempts`: the most attempts of a dispatched task over all rules.
    - `extended`: the policy has extensions.
    """

    providers: tuple[Provider, ...]
    selection: Selection = Selection.WEIGHTED
    sticky: Sticky | None = None
    fallbacks: tuple[Fallback, ...] = ()
    fallback_providers: tuple[Provider, ...] = ()
    breaker: Breaker | None = None
    limits: tuple[Limit, ...] = ()
    pre: tuple[Extension, ...] = ()
    validators: tuple[Extension, ...] = ()
    post: tuple[Extension, ...] = ()
    metadata: JsonObject = {}
    reserves: bool = False
    pool: tuple[Provider, ...] = ()
    shares: tuple[tuple[int, float, int, int], ...] = ()
    charges_vary: bool = False
    has_attributes: bool = False
    attempts: int = DEFAULT_ATTEMPTS
    extended: bool = False
    plan_cache: PlanCache = msgspec.field(default_factory=PlanCache)

    def __post_init__(self) -> None:
        force_setattr(
            self, "charges_vary", any(x.scope is Scope.USER or x.resource is Resource.COST for x in self.limits)
        )
        if self.fallbacks:
            force_setattr(self, "attempts", max(DEFAULT_ATTEMPTS, 1 + max(r.retry for r in self.fallbacks)))
        force_setattr(self, "has_attributes", any(rule.attributes for rule in self.fallbacks))
        force_setattr(self, "extended", bool(self.pre or self.validators or self.post))
        force_setattr(self, "pool", tuple(p for p in self.providers if p.weight > 0))
        shares = tuple((-p.priority, p.weight, p.seed, i) for i, p in enumerate(self.pool))
        force_setattr(self, "shares", shares)
        holds = any(x.resource is not Resource.REQUESTS for x in self.limits)
        force_setattr(self, "reserves", holds or any(p.max_concurrency for p in self.providers))

    @property
    def needs_extensions(self) -> bool:
        """Whether requests must be refused when extensions cannot be called before the decision."""
        return any(e.required for e in self.pre) or any(v.on_fail is OnFail.BLOCK for v in self.validators)

    @property
    def requires_extensions(self) -> bool:
        """Whether any extension can stop a request, before or after the decision."""
        return self.needs_extensions or any(e.required for e in self.post)


class StoredPolicy(Struct, frozen=True, weakref=True):
    """A stored policy. `revision` grows with every write of the tenant; `hash` is that of the canonical JSON."""

    policy_id: str
    revision: int
    hash: str
    policy: Policy


class TenantPolicies(Struct, frozen=True):
    """All policies of a tenant and its levers, as of one moment.

    Every decide row returns the current `stamp`. If it differs from this one, the policies are loaded again.
    """

    tenant_id: str
    revision: int
    stamp: bytes
    policies: dict[str, StoredPolicy]
    head: TenantHead = NO_HEAD
