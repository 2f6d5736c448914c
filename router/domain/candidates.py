"""The candidates of a request, in the order of preference.

Weighted rendezvous hashing (Highest Random Weight with the logarithm method): the score of a provider is −w / ln(h),
where h is uniform in (0, 1): a hash of (tenant, policy, request) seeded by the provider. Removing a provider moves only
its own share.
"""

from math import log
from typing import Final, NamedTuple, assert_never, cast

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from router.domain.decision import CandidateVerdict, Reason, Verdict
from router.domain.figures import Share, Snapshot, latency_and_cost, shares_by_score
from router.domain.policy.model import Fallback, Limit, Provider, Resource, Scope, Selection, StoredPolicy
from router.domain.request import NO_CONSTRAINTS, NO_STEP, DecideRequest

MAX_ORDERS = 720
_PER_64 = 1.0 / (1 << 64)
_ONLY = (0,)
# A member of an enum costs 60 ns on Python 3.11, a global 5.
_REQUESTS: Final = Resource.REQUESTS
_TOKENS: Final = Resource.TOKENS
_COST: Final = Resource.COST
_CONCURRENCY: Final = Resource.CONCURRENCY
_BEST_SCORE = Selection.BEST_SCORE


class Charge(Struct, frozen=True):
    """`units` against `limit`, counted for `owner` (a user, policy or provider; "" is the tenant)."""

    limit: Limit
    owner: str
    units: int


class Offer(NamedTuple):
    """A provider with its expected latency, and cost in micro-USD."""

    provider_id: str
    expected_latency_ms: int
    expected_cost_microusd: int


class Candidate(Struct, frozen=True):
    """One provider in the order of preference, and what choosing it reserves."""

    provider: Provider
    reason: Reason
    expected_latency_ms: int
    expected_cost_microusd: int
    charges: tuple[Charge, ...] = ()

    @property
    def offer(self) -> Offer:
        """What a decision for this candidate returns to the caller."""
        return Offer(self.provider.name, self.expected_latency_ms, self.expected_cost_microusd)


def in_order(
    request: DecideRequest, stored: StoredPolicy, snapshot: Snapshot, *, best_score: bool, session: str | None
) -> tuple[tuple[Candidate, ...], tuple[CandidateVerdict, ...]]:
    """The candidates in order, and the providers that the request's constraints passed over.

    `best_score`: whether the gate allows it. `session`: with pins on, candidates are ordered by a hash of the session
    instead of the request id.
    """
    policy = stored.policy
    memo = policy.memo
    if memo.snapshot is not snapshot:
        memo.renew(snapshot)
    best = best_score and policy.selection is _BEST_SCORE
    if best:
        if memo.by_score is None:
            memo.by_score = shares_by_score(policy.pool, snapshot)
        ranked = _rendezvous(request, stored, memo.by_score, session)
    else:
        ranked = _rendezvous(request, stored, policy.shares, session)
    plain = request.constraints is NO_CONSTRAINTS and request.step is NO_STEP and not policy.has_attributes
    remembered_as = (best, ranked)
    if plain and (known := memo.orders.get(remembered_as)) is not None:
        return cast(tuple[Candidate, ...], known), ()
    reason = Reason.BEST_SCORE if best else Reason.WEIGHTED
    order = [(policy.pool[i], reason) for i in ranked]
    if policy.fallbacks or request.step is not NO_STEP:
        order = _with_fallbacks(request, stored, order)
    found, passed = _within_constraints(request, stored, order, snapshot)
    if plain and not any(c.charges for c in found) and len(memo.orders) < MAX_ORDERS:
        memo.keep_order(remembered_as, found)
    return found, passed


def _rendezvous(
    request: DecideRequest, stored: StoredPolicy, shares: tuple[Share, ...], session: str | None
) -> tuple[int, ...]:
    """Indexes into the pool: by rank, then by weighted rendezvous of the request, or of its session.

    So a session whose pin is lost or unreadable goes to the same provider as before.
    """
    if len(shares) == 1:
        return _ONLY
    # Neither separator can occur in the name before it, so a session never equals a request.
    who = f"\0{request.request_id}" if session is None else f"\1{session}"
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
    """The target of the rule that matches the caller's step first; then the pool; then the targets of other matching
    rules.

    A rule's `retry` counts the tries on the failed provider, the first one included.
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
            # The provider failed and has no retry left: it goes to the end of the list.
            order = [o for o in order if o[0] is not failed]
            order.append((failed, Reason.RETRY))
    chain = front + order + [(by_name[r.to], Reason.FALLBACK) for r in rules]
    seen: set[str] = set()
    return [c for c in chain if not (c[0].name in seen or seen.add(c[0].name))]  # type: ignore[func-returns-value]


def status_matches(statuses: tuple[str, ...], status: str) -> bool:
    """Whether a rule's `when.status` covers a status. `5xx` is a class; an empty list covers all."""
    if not statuses:
        return True
    status = status.lower().removeprefix("http_")
    if status in statuses:
        return True
    return len(status) == 3 and status.isdigit() and f"{status[0]}xx" in statuses


def attributes_match(rule: Fallback, request: DecideRequest) -> bool:
    """Whether a rule's `when` matches this request, whatever its status."""
    return all(attribute(name, request) in values for name, values in rule.attributes)


def attribute(name: str, request: DecideRequest) -> str | None:
    """The value that `when` compares: the task type, else a text in the request's context, else in its metadata."""
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
        charges = tuple(Charge(x, p.name, units(x, request, cost)) for x in per_provider) if per_provider else ()
        kept.append(Candidate(p, reason, latency, cost, charges))
    return tuple(kept), tuple(passed)


def units(limit: Limit, request: DecideRequest, provider_cost: int) -> int:
    """The units that one decision reserves of a limit: the request's estimate, else the provider's figure, else the
    limit's default.
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
