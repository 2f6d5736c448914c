"""A tenant's policy, compiled for `plan`. Costs are integer micro-USD, times are milliseconds."""

from enum import StrEnum
from hashlib import blake2b

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from router.domain.json import JsonObject
from router.domain.plan_cache import PlanCache
from router.domain.view import NO_HEAD, HeadView

DEFAULT_POLICY_ID = "default"
DEFAULT_ATTEMPTS = 2
ENTRY_BYTES = 8


class Scope(StrEnum):
    """Who shares a limit's counter."""

    TENANT = "tenant"
    USER = "user"
    POLICY = "policy"
    PROVIDER = "provider"


class Resource(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    COST = "cost"
    CONCURRENCY = "concurrency"


class Algorithm(StrEnum):
    """`sliding`: 12 sub-buckets; a unit is free again within one bucket after the window. `log`: exact."""

    SLIDING = "sliding"
    LOG = "log"


class Selection(StrEnum):
    """How the candidates are ordered."""

    WEIGHTED = "weighted"
    BEST_SCORE = "best_score"


class WhenAllOpen(StrEnum):
    """What to do when every candidate's breaker is open."""

    FAIL = "fail"
    PROBE_ONE = "probe_one"
    LAST_RESORT = "last_resort"


class OnStoreError(StrEnum):
    """What a limit answers while its counter is unavailable."""

    DENY = "deny"
    ALLOW = "allow"


class OnFail(StrEnum):
    """What a validator's refusal does."""

    BLOCK = "block"
    WARN = "warn"
    IGNORE = "ignore"


def entry_id(*parts: str) -> bytes:
    """The 8-byte id of an entry in a state string. Entries are found by id, never by position, so two revisions read
    one string.
    """
    return blake2b("\0".join(parts).encode(), digest_size=ENTRY_BYTES).digest()


def provider_entry(name: str) -> bytes:
    """The id of a provider's breaker and levers."""
    return entry_id("provider", name)


class Provider(Struct, frozen=True):
    """A provider. `entry` names its breaker; `seed` is its part of the rendezvous hash."""

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
    """A provider with its derived ids. `max_concurrency` 0: unbounded."""
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

    The counter is found by `entry` (a hash of id and window): a changed limit keeps its usage, a changed window starts
    a new counter.
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
    """Requests with the same context[session_key] go to the same provider while it is fit."""

    session_key: str = "session_id"
    ttl_ms: int = 600_000


class Backoff(Struct, frozen=True):
    """The delay before a retry: base · 2ⁿ (exponential), base · n (linear) or base (fixed), at most max."""

    strategy: str = "exponential"
    base_ms: int = 200
    max_ms: int = 30_000
    jitter: bool = True


class Fallback(Struct, frozen=True):
    """The provider to go to when `statuses` (empty: any failure) and `attributes` match, after `retry` tries on one
    provider.
    """

    to: str
    statuses: tuple[str, ...] = ()
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    retry: int = 1
    backoff: Backoff | None = None


class Breaker(Struct, frozen=True):
    """When a provider's breaker opens, and when it is tried again."""

    failure_threshold: int = 5
    error_rate_threshold: float = 0.5
    error_rate_window_ms: int = 60_000
    minimum_requests: int = 10
    timeout_ms: int = 60_000
    success_threshold: int = 2
    half_open_max_calls: int = 3
    when_all_open: WhenAllOpen = WhenAllOpen.FAIL


class Extension(Struct, frozen=True):
    """A step of the pipeline, called over NATS. `required`: for `pre` and `post`; `on_fail`: for validators."""

    id: str
    required: bool = False
    on_fail: OnFail = OnFail.IGNORE
    when: JsonObject = {}
    config: JsonObject = {}
    timeout_ms: int = 1000
    retry: int = 0


class Policy(Struct, frozen=True):
    """A compiled policy.

    `fallback_providers`: every provider that a rule names, in rule order, once. `reserves`: a result gives something
    back (tokens, cost, a concurrency lease). `pool`: the providers with weight; `shares`: their tiers, weights, seeds
    and indexes in it. `varies`: charges depend on user or candidates. `has_attributes`: rules read the request.
    `attempts`: the maximum for a dispatched task when no rule does. `extended`: it has extensions. All seven are
    derived; values that are passed in are ignored.
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
    varies: bool = False
    has_attributes: bool = False
    attempts: int = DEFAULT_ATTEMPTS
    extended: bool = False
    plan_cache: PlanCache = msgspec.field(default_factory=PlanCache)

    def __post_init__(self) -> None:
        force_setattr(self, "varies", any(x.scope is Scope.USER or x.resource is Resource.COST for x in self.limits))
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
        """Whether a decision without its extensions is not allowed."""
        return any(e.required for e in self.pre) or any(v.on_fail is OnFail.BLOCK for v in self.validators)

    @property
    def requires_extensions(self) -> bool:
        """Whether a required `post` extension must confirm a decision before it counts."""
        return self.needs_extensions or any(e.required for e in self.post)


class StoredPolicy(Struct, frozen=True, weakref=True):
    """A policy in the store. `revision` grows with every write of the tenant; `hash` is that of its canonical JSON."""

    policy_id: str
    revision: int
    hash: str
    policy: Policy


class TenantPolicies(Struct, frozen=True):
    """All policies of a tenant at one moment, and its levers at that moment.

    Every decide row answers the current `stamp`; when it differs, the policies are loaded again.
    """

    tenant_id: str
    revision: int
    stamp: bytes
    policies: dict[str, StoredPolicy]
    head: HeadView = NO_HEAD
