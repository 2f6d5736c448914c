"""Request and policy → what the store is asked to do. No clock, no dice: a replay of the inputs plans the same.

The candidates are **ordered** here; the script only walks the list. The order is weighted rendezvous hashing (Highest
Random Weight with the logarithm method): the score of a provider is −w / ln(h), h uniform in (0, 1) from the hash of
(tenant, policy, request) seeded by the provider. Removing a provider moves only its own share.
"""

from math import log
from typing import NamedTuple, cast

from msgspec import Struct
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from router.domain.decision import CandidateVerdict, Reason, Verdict
from router.domain.figures import NO_FIGURES, Share, Snapshot, latency_and_cost, shares_by_score
from router.domain.ids import idempotency_name
from router.domain.policy import DEFAULT_ATTEMPTS, Fallback, Limit, Provider, Resource, Scope, Selection, StoredPolicy
from router.domain.request import NO_CONSTRAINTS, NO_STEP, DecideRequest

PIN_NAME_BYTES = 10
ANONYMOUS = "~anonymous"
MOST_ORDERS = 720
_PER_64 = 1.0 / (1 << 64)
_ONLY = (0,)
# Members of an enum cost 60 ns each on Python 3.11, a global 5.
_TENANT, _USER, _PROVIDER = Scope.TENANT, Scope.USER, Scope.PROVIDER
_REQUESTS, _TOKENS, _COST = Resource.REQUESTS, Resource.TOKENS, Resource.COST
_BEST_SCORE = Selection.BEST_SCORE


class Features(Struct, frozen=True):
    """What the CP gate allows; refused ones are named in decision.metadata.requires_cp."""

    pins: bool = True
    retries: bool = True
    best_score: bool = True
    explain: bool = True
    extensions: bool = True
    multi_tenant: bool = True


ALL_FEATURES = Features()


class Deadlines(Struct, frozen=True):
    """deadline_ms = min(most, max(least, factor × expected_latency_ms)) unless the request gives one."""

    factor: float = 5.0
    least_ms: int = 5_000
    most_ms: int = 60_000


DEFAULT_DEADLINES = Deadlines()


class Charge(Struct, frozen=True):
    """`units` against `limit`, counted for `owner` (a user, policy or provider; "" for the tenant)."""

    limit: Limit
    owner: str
    units: int


class Offer(NamedTuple):
    """A provider, and what is expected of it; cost in micro-USD."""

    provider_id: str
    expected_latency_ms: int
    expected_cost_microusd: int


class Candidate(Struct, frozen=True):
    """One provider in the order of preference, and what choosing it means."""

    provider: Provider
    reason: Reason
    expected_latency_ms: int
    expected_cost_microusd: int
    charges: tuple[Charge, ...] = ()

    @property
    def offer(self) -> Offer:
        """What choosing it would come to."""
        return Offer(self.provider.name, self.expected_latency_ms, self.expected_cost_microusd)


class Pin(Struct, frozen=True):
    """A soft pin: `name` is a hash of policy and session; `key` is what the caller sent."""

    name: bytes
    key: str
    ttl_ms: int


class Plan(Struct, frozen=True):
    """Everything the store needs for one decision. `name` names its idempotency key.

    `unfinished`: something follows before the answer may be given or the task dispatched (post extensions).
    `by_rule`: `max_attempts` is a bound; the rule that matches a failure says how many there are.
    """

    name: bytes
    stored: StoredPolicy
    candidates: tuple[Candidate, ...]
    charges: tuple[Charge, ...]
    pin: Pin | None
    deadline_ms: int
    max_attempts: int
    passed_over: tuple[CandidateVerdict, ...] = ()
    requires_cp: tuple[str, ...] = ()
    figures_version: int = 0
    unfinished: bool = False
    by_rule: bool = False


def plan(
    request: DecideRequest,
    stored: StoredPolicy,
    features: Features = ALL_FEATURES,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    snapshot: Snapshot = NO_FIGURES,
) -> Plan:
    """The plan of one request under one policy.

    Equal candidate lists of a policy are one and the same tuple as far as the policy's memo reaches, and so are charges
    that no estimate and no user tells apart: the store packs each of them once.
    """
    policy = stored.policy
    refused = _refused_features(request, stored, features) if features is not ALL_FEATURES else ()
    pin = _pin(request, stored) if policy.sticky is not None and features.pins else None
    ordered, passed_over = _order(request, stored, features, snapshot, pin)
    deadline_ms = request.options.deadline_ms
    if deadline_ms is None:
        first = ordered[0].expected_latency_ms if ordered else 0
        deadline_ms = int(min(deadlines.most_ms, max(deadlines.least_ms, deadlines.factor * first)))
    return Plan(
        _name(request),
        stored,
        ordered,
        _charges(request, stored, ordered) if policy.limits else (),
        pin,
        deadline_ms,
        _max_attempts(request, stored) if features.retries else 1,
        passed_over,
        refused,
        snapshot.version,
        by_rule=request.options.max_attempts is None,
    )


def _name(request: DecideRequest) -> bytes:
    step = request.step.key
    if request.idempotency_key is not None:
        return idempotency_name(request.tenant_id, "key", request.idempotency_key, step)
    return idempotency_name(request.tenant_id, "request", request.request_id, step)


def _refused_features(request: DecideRequest, stored: StoredPolicy, features: Features) -> tuple[str, ...]:
    """The features that this request would have used, had the gate allowed them."""
    policy = stored.policy
    wanted = (
        ("pins", features.pins, _session(request, stored) is not None),
        ("retries", features.retries, request.push_assignment and _max_attempts(request, stored) > 1),
        ("best_score", features.best_score, policy.selection is Selection.BEST_SCORE),
        ("explain", features.explain, request.options.explain),
        ("extensions", features.extensions, bool(policy.pre or policy.validators or policy.post)),
    )
    return tuple(name for name, allowed, used in wanted if used and not allowed)


def _session(request: DecideRequest, stored: StoredPolicy) -> str | None:
    sticky = stored.policy.sticky
    if sticky is None:
        return None
    value = request.context.get(sticky.session_key)
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _pin(request: DecideRequest, stored: StoredPolicy) -> Pin | None:
    session = _session(request, stored)
    sticky = stored.policy.sticky
    if session is None or sticky is None:
        return None
    # Pins are the tenant's own: a collision is among its own sessions, so a quick hash will do.
    digest = xxh3_128_digest(f"{stored.policy_id}\0{session}".encode())
    return Pin(digest[:PIN_NAME_BYTES], session, sticky.ttl_ms)


def _order(
    request: DecideRequest, stored: StoredPolicy, features: Features, snapshot: Snapshot, pin: Pin | None
) -> tuple[tuple[Candidate, ...], tuple[CandidateVerdict, ...]]:
    policy = stored.policy
    memo = policy.memo
    if memo.snapshot is not snapshot:
        memo.renew(snapshot)
    best = policy.selection is _BEST_SCORE and features.best_score
    if best:
        if memo.by_score is None:
            memo.by_score = shares_by_score(policy.pool, snapshot)
        ranked = _rendezvous(request, stored, memo.by_score, pin)
    else:
        ranked = _rendezvous(request, stored, policy.shares, pin)
    plain = request.constraints is NO_CONSTRAINTS and request.step is NO_STEP and not policy.has_attributes
    remembered_as = (best, ranked)
    if plain and (known := memo.orders.get(remembered_as)) is not None:
        return cast(tuple[Candidate, ...], known), ()
    reason = Reason.BEST_SCORE if best else Reason.WEIGHTED
    order = [(policy.pool[i], reason) for i in ranked]
    if policy.fallbacks or request.step is not NO_STEP:
        order = _with_fallbacks(request, stored, order)
    found, passed = _within_constraints(request, stored, order, snapshot)
    if plain and not any(c.charges for c in found) and len(memo.orders) < MOST_ORDERS:
        memo.keep_order(remembered_as, found)
    return found, passed


def _rendezvous(
    request: DecideRequest, stored: StoredPolicy, shares: tuple[Share, ...], pin: Pin | None
) -> tuple[int, ...]:
    """Places in the pool: by rank, then by weighted rendezvous of the request, or of its session.

    A session whose pin is lost, or cannot be read, thus goes where it went.
    """
    if len(shares) == 1:
        return _ONLY
    # Neither separator can be in a name before it, so no session is taken for a request.
    who = f"\0{request.request_id}" if pin is None else f"\1{pin.key}"
    key = f"{request.tenant_id}\0{stored.policy_id}{who}".encode()
    # (h + 0.5) / 2⁶⁴ is in (0, 1), so the logarithm is finite and negative.
    scored = [
        (rank, weight / log((xxh3_64_intdigest(key, seed) + 0.5) * _PER_64), i) for rank, weight, seed, i in shares
    ]
    scored.sort()
    return tuple([s[2] for s in scored])


def _with_fallbacks(
    request: DecideRequest, stored: StoredPolicy, order: list[tuple[Provider, Reason]]
) -> list[tuple[Provider, Reason]]:
    """The rule that matches the caller's step goes first; then the pool, then every other matching rule's target.

    A rule's `retry` counts the tries on the failed provider, the first one included (CONTRACTS §8).
    """
    by_name = {p.name: p for p in stored.policy.providers}
    for p in stored.policy.fallback_providers:
        by_name.setdefault(p.name, p)
    step = request.step
    rules = [r for r in stored.policy.fallbacks if attributes_match(r, request)]
    front: list[tuple[Provider, Reason]] = []
    if step.status is not None and step.status != "success":
        rule = next((r for r in rules if status_matches(r.statuses, step.status)), None)
        failed = by_name.get(step.current_provider or "")
        if rule is not None:
            if failed is not None and step.retry_attempts + 1 < rule.retry:
                front.append((failed, Reason.RETRY))
            if failed is None or rule.to != failed.name:
                front.append((by_name[rule.to], Reason.FALLBACK))
        if failed is not None and not (front and front[0][0] is failed):
            # Failed and not to be retried: the last resort of the list instead of its head.
            order = [o for o in order if o[0] is not failed]
            order.append((failed, Reason.RETRY))
    chain = front + order + [(by_name[r.to], Reason.FALLBACK) for r in rules]
    seen: set[str] = set()
    return [c for c in chain if not (c[0].name in seen or seen.add(c[0].name))]  # type: ignore[func-returns-value]


def status_matches(statuses: tuple[str, ...], status: str) -> bool:
    """Whether a rule's `when.status` list covers a status; `5xx` is a class, an empty list covers all."""
    if not statuses:
        return True
    status = status.lower().removeprefix("http_")
    if status in statuses:
        return True
    return len(status) == 3 and status.isdigit() and f"{status[0]}xx" in statuses


def attributes_match(rule: Fallback, request: DecideRequest) -> bool:
    """Whether a rule's `when` is of this request, whatever its status."""
    return all(attribute(name, request) in values for name, values in rule.attributes)


def attribute(name: str, request: DecideRequest) -> str | None:
    """What a policy's `when` looks at: the task type, else a text in the request's context, else in its metadata."""
    if name in {"message_type", "task_type"}:
        return request.task_type
    value = request.context.get(name, request.metadata.get(name))
    return value if isinstance(value, str) else None


def _within_constraints(
    request: DecideRequest,
    stored: StoredPolicy,
    order: list[tuple[Provider, Reason]],
    snapshot: Snapshot,
) -> tuple[tuple[Candidate, ...], tuple[CandidateVerdict, ...]]:
    latency_bound = request.constraints.max_latency_ms
    cost_bound = request.constraints.max_cost_microusd
    per_provider = [x for x in stored.policy.limits if x.scope is Scope.PROVIDER]
    kept: list[Candidate] = []
    passed: list[CandidateVerdict] = []
    for p, reason in order:
        latency, cost = latency_and_cost(p, snapshot)
        if (latency_bound is not None and latency > latency_bound) or (cost_bound is not None and cost > cost_bound):
            passed.append(CandidateVerdict(p.name, Verdict.CONSTRAINT, latency, cost))
            continue
        charges = tuple(Charge(x, p.name, _units(x, request, cost)) for x in per_provider) if per_provider else ()
        kept.append(Candidate(p, reason, latency, cost, charges))
    return tuple(kept), tuple(passed)


def _units(limit: Limit, request: DecideRequest, provider_cost: int) -> int:
    """What one decision reserves of a limit: the request's estimate, else the provider's figure, else the limit's."""
    resource = limit.resource
    if resource is _TOKENS:
        estimate = request.options.estimate_tokens
        return limit.default_estimate if estimate is None else estimate
    if resource is _COST:
        estimate = request.options.estimate_cost_microusd
        return (provider_cost or limit.default_estimate) if estimate is None else estimate
    return 1


def _charges(request: DecideRequest, stored: StoredPolicy, candidates: tuple[Candidate, ...]) -> tuple[Charge, ...]:
    """Tenant, user and policy limits. Cost reserves for the dearest candidate, since any of them may be chosen."""
    policy = stored.policy
    options = request.options
    plain = not policy.varies and options.estimate_tokens is None and options.estimate_cost_microusd is None
    if plain and policy.memo.charges is not None:
        return cast(tuple[Charge, ...], policy.memo.charges)
    dearest = max([c.expected_cost_microusd for c in candidates], default=0) if policy.varies else 0
    found: list[Charge] = []
    for x in policy.limits:
        scope = x.scope
        if scope is _PROVIDER:
            continue
        if scope is _TENANT:
            owner = ""
        elif scope is _USER:
            owner = request.user_id or ANONYMOUS
        else:
            owner = stored.policy_id
        found.append(Charge(x, owner, 1 if x.resource is _REQUESTS else _units(x, request, dearest)))
    charges = tuple(found)
    if plain:
        policy.memo.keep_charges(charges)
    return charges


def _max_attempts(request: DecideRequest, stored: StoredPolicy) -> int:
    """The request's wish, else the most that a rule for it allows (`attempts.next_in_ms` knows which rule it is)."""
    if request.options.max_attempts is not None:
        return request.options.max_attempts
    policy = stored.policy
    if not policy.has_attributes:
        return policy.attempts
    return max([DEFAULT_ATTEMPTS, *(1 + r.retry for r in policy.fallbacks if attributes_match(r, request))])
