"""Request and policy → what the store is asked to do. No clock and no randomness: the same inputs give the same plan.

The candidates are **ordered** here (`candidates`); the script only walks the list.
"""

from typing import Final, assert_never, cast

from msgspec import Struct
from xxhash import xxh3_128_digest

from router.domain.candidates import Candidate, Charge, attributes_match, in_order, units
from router.domain.decision import CandidateVerdict
from router.domain.figures import NO_FIGURES, Snapshot
from router.domain.ids import idempotency_name
from router.domain.policy.model import DEFAULT_ATTEMPTS, Resource, Scope, Selection, StoredPolicy
from router.domain.request import DecideRequest

PIN_NAME_BYTES = 10
ANONYMOUS = "~anonymous"
# A member of an enum costs 60 ns on Python 3.11, a global 5.
_TENANT: Final = Scope.TENANT
_USER: Final = Scope.USER
_POLICY: Final = Scope.POLICY
_PROVIDER: Final = Scope.PROVIDER
_REQUESTS = Resource.REQUESTS


class Features(Struct, frozen=True):
    """The features that the CP gate allows. A request that needs another gets it in decision.metadata.requires_cp."""

    pins: bool = True
    retries: bool = True
    best_score: bool = True
    explain: bool = True
    extensions: bool = True
    multi_tenant: bool = True


ALL_FEATURES = Features()


class Deadlines(Struct, frozen=True):
    """deadline_ms = min(maximum, max(minimum, factor × expected_latency_ms)), unless the request gives one."""

    factor: float = 5.0
    min_ms: int = 5_000
    max_ms: int = 60_000

    def of(self, expected_latency_ms: int) -> int:
        """The deadline for a provider with that latency."""
        return int(min(self.max_ms, max(self.min_ms, self.factor * expected_latency_ms)))


DEFAULT_DEADLINES = Deadlines()


class Pin(Struct, frozen=True):
    """A soft pin. `name` is a hash of policy and session; `key` is what the caller sent."""

    name: bytes
    key: str
    ttl_ms: int


class Plan(Struct, frozen=True):
    """Everything that the store needs for one decision. `name` names its idempotency key.

    `unfinished`: post extensions follow before the answer or the dispatch. `by_rule`: `max_attempts` is a bound; the
    rule that matches a failure gives the number. `deadline_ms`: the life of leases and of the task's record; long
    enough for any candidate and its `deadline_of`.
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
    deadlines: Deadlines = DEFAULT_DEADLINES

    def deadline_of(self, candidate: Candidate) -> int:
        """The deadline of this candidate, in ms."""
        return self.deadlines.of(candidate.expected_latency_ms)

    @property
    def first_deadline_ms(self) -> int:
        """The deadline of the first candidate, which is usually the chosen one."""
        return self.deadline_of(self.candidates[0]) if self.candidates else self.deadline_ms


def plan(
    request: DecideRequest,
    stored: StoredPolicy,
    features: Features = ALL_FEATURES,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    snapshot: Snapshot = NO_FIGURES,
) -> Plan:
    """The plan of one request under one policy.

    Equal candidate lists of a policy are one and the same tuple, as far as the policy's plan cache reaches. The same
    holds for charges that neither estimate nor user tells apart. So the store packs each of them once.
    """
    policy = stored.policy
    refused = _refused_features(request, stored, features) if features is not ALL_FEATURES else ()
    pin = _pin(request, stored) if policy.sticky is not None and features.pins else None
    session = None if pin is None else pin.key
    ordered, passed_over = in_order(request, stored, snapshot, best_score=features.best_score, session=session)
    if (given := request.options.deadline_ms) is not None:
        deadlines = Deadlines(0, given, given)
    # The lease of an undispatched decision lasts as long as its first candidate's; a task's ends at its provider's
    # deadline.
    slowest = ordered[0].expected_latency_ms if ordered else 0
    if request.push_assignment:
        slowest = max([slowest, *[c.expected_latency_ms for c in ordered]])
    return Plan(
        _name(request),
        stored,
        ordered,
        _charges(request, stored, ordered) if policy.limits else (),
        pin,
        deadlines.of(slowest),
        _max_attempts(request, stored) if features.retries else 1,
        passed_over,
        refused,
        snapshot.version,
        by_rule=request.options.max_attempts is None,
        deadlines=deadlines,
    )


def _name(request: DecideRequest) -> bytes:
    step = request.step.key
    if request.idempotency_key is not None:
        return idempotency_name(request.tenant_id, "key", request.idempotency_key, step)
    return idempotency_name(request.tenant_id, "request", request.request_id, step)


def _refused_features(request: DecideRequest, stored: StoredPolicy, features: Features) -> tuple[str, ...]:
    """The features that this request would have used, had the gate allowed them."""
    policy = stored.policy
    checks = (
        ("pins", features.pins, _session(request, stored) is not None),
        ("retries", features.retries, request.push_assignment and _max_attempts(request, stored) > 1),
        ("best_score", features.best_score, policy.selection is Selection.BEST_SCORE),
        ("explain", features.explain, request.options.explain),
        ("extensions", features.extensions, bool(policy.pre or policy.validators or policy.post)),
    )
    return tuple(name for name, allowed, used in checks if used and not allowed)


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
    # Pins are the tenant's own: a collision affects only its own sessions, so a quick hash is enough.
    digest = xxh3_128_digest(f"{stored.policy_id}\0{session}".encode())
    return Pin(digest[:PIN_NAME_BYTES], session, sticky.ttl_ms)


def _charges(request: DecideRequest, stored: StoredPolicy, candidates: tuple[Candidate, ...]) -> tuple[Charge, ...]:
    """The charges of tenant, user and policy limits. Cost is reserved for the dearest candidate, since any may be
    chosen.
    """
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
        elif scope is _POLICY:
            owner = stored.policy_id
        else:
            assert_never(scope)
        found.append(Charge(x, owner, 1 if x.resource is _REQUESTS else units(x, request, dearest)))
    charges = tuple(found)
    if plain:
        policy.memo.keep_charges(charges)
    return charges


def _max_attempts(request: DecideRequest, stored: StoredPolicy) -> int:
    """The request's option, else the maximum over its rules (`attempts.next_in_ms` knows which rule counts)."""
    if request.options.max_attempts is not None:
        return request.options.max_attempts
    policy = stored.policy
    if not policy.has_attributes:
        return policy.attempts
    return max([DEFAULT_ATTEMPTS, *(1 + r.retry for r in policy.fallbacks if attributes_match(r, request))])
