"""The candidates of a request, in order of preference.

The order comes from weighted rendezvous hashing (Highest Random Weight, logarithm method). A provider with weight w has
the score −w / ln(h), where h is uniform in (0, 1): the hash of (tenant, policy, request) with the provider as seed. If
a provider is removed, only the requests of its own share move to other providers.
"""

from math import log
from typing import Final, NamedTuple, assert_never, cast

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from router.domain.decide.decision import CandidateVerdict, Reason, Verdict
from router.domain.decide.figures import Share, Snapshot, latency_and_cost, shares_by_score
from router.domain.decide.request import NO_CONSTRAINTS, NO_STEP, DecideRequest, Step
from router.domain.policy.fallbacks import status_matches
from router.domain.policy.model import Fallback, Limit, Provider, StoredPolicy
from router.domain.policy.vocabulary import Resource, Scope, Selection

MAX_ORDERS = 720
_PER_64 = 1.0 / (1 << 64)
_ONLY = (0,)
# A member of an enum costs 60 ns on Python 3.11, a global 5.
_REQUESTS: Final = Resource.REQUESTS
_TOKENS: Final = Resource.TOKENS
_COST: Final = Resource.COST
_CONCURRENCY: Final = Resource.CONCURRENCY
_BEST_SCORE: Final = Selection.BEST_SCORE
_WEIGHTED: Final = Selection.WEIGHTED


class Charge(Struct, frozen=True):
    """A charge of `units` against `limit`. `owner` of the counter: a user, policy or provider; "": the tenant."""

    limit: Limit
    owner: str
    units: int


class Offer(NamedTuple):
    """A provider with its expected latency in ms and its expected cost in micro-USD."""

    provider_id: str
    expected_latency_ms: int
    expected_cost_microusd: int


class Candidate(Struct, frozen=True):
    """One provider in the order of preference, and the charges that choosing it makes."""

    provider: Provider
    reason: Reason
    expected_latency_ms: int
    expected_cost_microusd: int
    charges: tuple[Charge, ...] = ()

    @property
    def offer(self) -> Offer:
        """The provider and its figures, as a decision for this candidate returns them."""
        return Offer(self.provider.name, self.expected_latency_ms, self.expected_cost_microusd)


def in_order(
    request: DecideRequest,
    stored: StoredPolicy,
    snapshot: Snapshot,
    *,
    best_score: bool,
    session: str | None,
    steps: bool = True,
) -> tuple[tuple[Candidate, ...], tuple[CandidateVerdict, ...]]:
    """Return the candidates in order, and the providers that the request's constraints exclude.

    `best_score`: whether the gate allows that selection. `session`: with pins on, candidates are ordered by a hash of
    the session instead of the request id; None: there is no session. `steps`: whether the gate allows further attempts,
    also those that the caller makes by itself; else its step is ignored.
    """
    step = request.step if steps else NO_STEP
    policy = stored.policy
    plan_cache = policy.plan_cache
    if plan_cache.snapshot is not snapshot:
        plan_cache.renew(snapshot)
    selection = policy.selection
    if selection is _BEST_SCORE:
        best = best_score
    elif selection is _WEIGHTED:
        best = False
    else:
        assert_never(selection)
    if best:
        if plan_cache.by_score is None:
            plan_cache.by_score = shares_by_score(policy.pool, snapshot)
        ranked = _rendezvous(request, stored, plan_cache.by_score, session)
    else:
        ranked = _rendezvous(request, stored, policy.shares, session)
    plain = request.constraints is NO_CONSTRAINTS and step is NO_STEP and not policy.has_attributes
    order_key = (best, ranked)
    if plain and (cached := plan_cache.orders.get(order_key)) is not None:
        return cast(tuple[Candidate, ...], cached), ()
    reason = Reason.BEST_SCORE if best else Reason.WEIGHTED
    order = [(policy.pool[i], reason) for i in ranked]
    if policy.fallbacks or step is not NO_STEP:
        order = _with_fallbacks(request, step, stored, order)
    candidates, excluded = _within_constraints(request, stored, order, snapshot)
    if plain and not any(c.charges for c in candidates) and len(plan_cache.orders) < MAX_ORDERS:
        plan_cache.keep_order(order_key, candidates)
    return candidates, excluded


def _rendezvous(
    request: DecideRequest, stored: StoredPolicy, shares: tuple[Share, ...], session: str | None
) -> tuple[int, ...]:
    """Return indexes into the pool, by rank, then by weighted rendezvous of the request or of its session.

    With the session, a request whose pin is lost or unreadable still goes to the session's provider.
    """
    if len(shares) == 1:
        return _ONLY
    # Neither separator can occur in the policy id before it, so the key of a session never equals that of a request.
    subject = f"\0{request.request_id}" if session is None else f"\1{session}"
    key = f"{request.tenant_id}\0{stored.policy_id}{subject}".encode()
    # (h + 0.5) / 2⁶⁴ is in (0, 1), so the logarithm is finite and negative.
    scored = [
        (rank, weight / log((xxh3_64_intdigest(key, seed) + 0.5) * _PER_64), i) for rank, weight, seed, i in shares
    ]
    scored.sort()
    return tuple([s[2] for s in scored])


def _with_fallbacks(
    request: DecideRequest, step: Step, stored: StoredPolicy, order: list[tuple[Provider, Reason]]
) -> list[tuple[Provider, Reason]]:
    """Add the targets of fallback rules to the order.

    First comes the target of the rule that matches the caller's step, then the pool, then the targets of all rules that
    match the request. A rule's `retry` counts the tries on the failed provider, the first try included.
    """
    by_name = {p.name: p for p in stored.policy.providers}
    for p in stored.policy.fallback_providers:
        by_name.setdefault(p.name, p)
    rules = [r for r in stored.policy.fallbacks if attributes_match(r, request)]
    front: list[tuple[Provider, Reason]] = []
    if step.failed and step.status is not None:
        rule = next((r for r in rules if status_matches(r.statuses, step.status)), None)
        failed = by_name.get(step.current_provider or "")
        if rule is not None:
            if failed is not None and step.retry_attempts + 1 < rule.retry:
                front.append((failed, Reason.RETRY))
            if failed is None or rule.to != failed.name:
                front.append((by_name[rule.to], Reason.FALLBACK))
        if failed is not None and not (front and front[0][0] is failed):
            # The failed provider has no retry left, so it moves behind the pool.
            order = [o for o in order if o[0] is not failed]
            order.append((failed, Reason.RETRY))
    chain = front + order + [(by_name[r.to], Reason.FALLBACK) for r in rules]
    seen: set[str] = set()
    return [c for c in chain if not (c[0].name in seen or seen.add(c[0].name))]  # type: ignore[func-returns-value]


def attributes_match(rule: Fallback, request: DecideRequest) -> bool:
    """Whether the attributes in a rule's `when` match this request. The status is not compared."""
    return all(attribute(name, request) in values for name, values in rule.attributes)


def attribute(name: str, request: DecideRequest) -> str | None:
    """The value that `when` compares: the task type, or the text of this name in the request's context or metadata.

    The context has precedence. None: there is no text of this name.
    """
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
    candidates: list[Candidate] = []
    excluded: list[CandidateVerdict] = []
    for p, reason in order:
        latency, cost = latency_and_cost(p, snapshot)
        if (latency_bound is not None and latency > latency_bound) or (cost_bound is not None and cost > cost_bound):
            excluded.append(CandidateVerdict(p.name, Verdict.CONSTRAINT, latency, cost))
            continue
        charges = tuple(Charge(x, p.name, units(x, request, cost)) for x in per_provider) if per_provider else ()
        candidates.append(Candidate(p, reason, latency, cost, charges))
    return tuple(candidates), tuple(excluded)


def units(limit: Limit, request: DecideRequest, provider_cost: int) -> int:
    """The units of a limit that one decision reserves.

    For tokens and cost this is the request's estimate, else (for cost) the provider's figure, else the limit's default.
    A limit on requests or concurrency takes one unit.
    """
    resource = limit.resource
    if resource is _TOKENS:
        estimate = request.options.estimate_tokens
        return limit.default_estimate if estimate is None else estimate
    if resource is _COST:
        estimate = request.options.estimate_cost_microusd
        return (provider_cost or limit.default_estimate) if estimate is None else estimate
    if resource is _REQUESTS or resource is _CONCURRENCY:
        return 1
    assert_never(resource)
