"""Plans a decision: request, policy and figures → everything that the store needs to make it.

The plan orders the candidates (`candidates`); the script walks them and picks the first that is fit. There is no clock
and no randomness here: the same inputs give the same plan on every pod.
"""

from typing import Final, assert_never, cast

from msgspec import Struct
from xxhash import xxh3_128_digest

from router.domain.decide.candidates import Candidate, Charge, attributes_match, units
from router.domain.decide.decision import CandidateVerdict
from router.domain.decide.figures import NO_FIGURES, Snapshot
from router.domain.decide.orders import in_order
from router.domain.decide.request import NO_STEP, DecideRequest
from router.domain.gate import ALL_FEATURES, Features
from router.domain.ids import idempotency_name
from router.domain.policy.model import DEFAULT_ATTEMPTS, Limit, StoredPolicy
from router.domain.policy.vocabulary import Scope, Selection, is_estimated

PIN_NAME_BYTES = 10
MAX_SESSION_CHARS = 256
ANONYMOUS = "~anonymous"
# A missing value as text in JSON and Java, JavaScript, Python, pandas, Ruby, Go, C, Swift; and JavaScript's object.
_NONE = frozenset(("", "null", "undefined", "none", "nan", "nil", "<nil>", "(null)", "<null>", "[object object]"))
_MAX_NONE_CHARS = 16
# A member of an enum costs 60 ns on Python 3.11, a global 5.
_TENANT: Final = Scope.TENANT
_USER: Final = Scope.USER
_POLICY: Final = Scope.POLICY
_PROVIDER: Final = Scope.PROVIDER


class Deadlines(Struct, frozen=True):
    """deadline_ms = min(max_ms, max(min_ms, factor × expected_latency_ms)), unless the request sets a deadline."""

    factor: float = 5.0
    min_ms: int = 5_000
    max_ms: int = 60_000

    def of(self, expected_latency_ms: int) -> int:
        """The deadline in ms for a provider with this expected latency."""
        deadline_ms = self.factor * expected_latency_ms
        deadline_ms = max(deadline_ms, self.min_ms)
        return self.max_ms if deadline_ms > self.max_ms else int(deadline_ms)


DEFAULT_DEADLINES = Deadlines()


class Pin(Struct, frozen=True):
    """The pin of a session to a provider. It is soft: an unfit provider loses it.

    `name`: a hash of policy and session; `key`: the first 256 characters of the session as the caller sent it.
    """

    name: bytes
    key: str
    ttl_ms: int


class Plan(Struct, frozen=True):
    """Everything that the store needs for one decision.

    - `name`: the idempotency name of the request (`ids.idempotency_name`).
    - `deadline_ms`: lifetime of leases and of the task's record; at least `deadline_of` any candidate of a pushed task.
    - `passed_over`: providers that the request's constraints exclude.
    - `unfinished`: post extensions must run before the answer is sent or the task is dispatched.
    - `by_rule`: `max_attempts` is only a bound; the fallback rule that matches a failure determines the number.
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
    """Plan one request under one policy.

    Equal candidate lists of a policy are the same tuple object while its plan cache holds them, and so are charges that
    depend on neither an estimate nor a user. The store can therefore pack each tuple once and look it up by identity.
    """
    policy = stored.policy
    withheld = _withheld_features(request, stored, features) if features is not ALL_FEATURES else ()
    pin = _pin(request, stored) if policy.sticky is not None and features.pins else None
    if request.step is NO_STEP:
        name = of_all_steps = identity_name(request)
    else:
        name = identity_name(request, request.step.key)
        of_all_steps = identity_name(request)
    # With pins on, the session decides: a request whose pin is lost or unreadable still goes to its provider. The steps
    # of a request share one order.
    slot_name = of_all_steps if pin is None else pin.name
    ordered, passed_over = in_order(
        request,
        stored,
        snapshot,
        slot_name[-2] << 8 | slot_name[-1],
        best_score=features.best_score,
        steps=features.retries,
    )
    if (fixed_ms := request.options.deadline_ms) is not None:
        deadlines = Deadlines(0, fixed_ms, fixed_ms)
    # An undispatched decision holds its lease for the deadline of the first candidate. A task holds its lease until the
    # deadline of its provider, so its record must last as long as the slowest candidate.
    slowest = ordered[0].expected_latency_ms if ordered else 0
    if request.push_assignment:
        slowest = max([slowest, *[c.expected_latency_ms for c in ordered]])
    # Positional, as everywhere on the hot path: arguments by name take four times as long.
    return Plan(
        name,
        stored,
        ordered,
        _charges(request, stored, ordered) if policy.limits else (),
        pin,
        deadlines.of(slowest),
        _max_attempts(request, stored) if features.retries else 1,
        passed_over,
        withheld,
        snapshot.version,
        False,
        request.options.max_attempts is None,
        deadlines,
    )


def identity_name(request: DecideRequest, step: str = "") -> bytes:
    """The idempotency name of a request; without a `step`, the name that all of its steps share."""
    if request.idempotency_key is not None:
        return idempotency_name(request.tenant_id, "key", request.idempotency_key, step=step)
    return idempotency_name(request.tenant_id, "request", request.request_id, step=step)


def _withheld_features(request: DecideRequest, stored: StoredPolicy, features: Features) -> tuple[str, ...]:
    """The features that this request would use if the gate allowed them."""
    policy = stored.policy
    checks = (
        ("pins", features.pins, _session(request, stored) is not None),
        ("retries", features.retries, _attempts_again(request, stored)),
        ("best_score", features.best_score, policy.selection is Selection.BEST_SCORE),
        ("explain", features.explain, request.options.explain),
        ("extensions", features.extensions, bool(policy.pre or policy.validators or policy.post)),
    )
    return tuple(name for name, allowed, used in checks if used and not allowed)


def _attempts_again(request: DecideRequest, stored: StoredPolicy) -> bool:
    """Whether the request is or may get a further attempt: by its caller, or by dispatch."""
    step = request.step
    return step.failed or step.retry_attempts > 0 or (request.push_assignment and _max_attempts(request, stored) > 1)


def _session(request: DecideRequest, stored: StoredPolicy) -> str | None:
    sticky = stored.policy.sticky
    if sticky is None:
        return None
    value = request.context.get(sticky.session_key)
    if isinstance(value, str):
        # The first half is a fast test that most sessions pass.
        return value if (len(value) > _MAX_NONE_CHARS and not value.isspace()) or not stands_for_none(value) else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def stands_for_none(session: str) -> bool:
    """Whether a session is blank, or the text of a missing value: it would pin all such callers to one provider."""
    if len(session) > _MAX_NONE_CHARS:
        return session.isspace()
    return session.strip().lower() in _NONE


def has_empty_session(request: DecideRequest, stored: StoredPolicy) -> bool:
    """Whether the policy has sticky sessions, and the request's session stands for none."""
    sticky = stored.policy.sticky
    value = None if sticky is None else request.context.get(sticky.session_key)
    return isinstance(value, str) and stands_for_none(value)


def _pin(request: DecideRequest, stored: StoredPolicy) -> Pin | None:
    session = _session(request, stored)
    sticky = stored.policy.sticky
    if session is None or sticky is None:
        return None
    # A pin belongs to one tenant, so a collision affects only that tenant's sessions: a fast hash is enough.
    digest = xxh3_128_digest(f"{stored.policy_id}\0{session}".encode())
    return Pin(digest[:PIN_NAME_BYTES], session[:MAX_SESSION_CHARS], sticky.ttl_ms)


def _charges(request: DecideRequest, stored: StoredPolicy, candidates: tuple[Candidate, ...]) -> tuple[Charge, ...]:
    """The charges of tenant, user and policy limits.

    Cost is reserved for the most expensive candidate, because any candidate may be chosen.
    """
    policy, options = stored.policy, request.options
    cache = policy.plan_cache
    if cache.charges is None:
        limits = [x for x in policy.limits if x.scope is not _PROVIDER]
        varying = tuple(i for i, x in enumerate(limits) if x.scope is _USER or is_estimated(x.resource))
        cache.keep_charges(tuple(_charge(x, request, stored, 0) for x in limits), varying)
    charges = cast(tuple[Charge, ...], cache.charges)
    if not policy.charges_vary and options.estimate_tokens is None and options.estimate_cost_microusd is None:
        return charges
    max_cost = max([c.expected_cost_microusd for c in candidates], default=0) if policy.charges_vary else 0
    found = list(charges)
    for i in cache.varying:
        found[i] = _charge(found[i].limit, request, stored, max_cost)
    return tuple(found)


def _charge(x: Limit, request: DecideRequest, stored: StoredPolicy, max_cost: int) -> Charge:
    scope = x.scope
    if scope is _TENANT:
        owner = ""
    elif scope is _USER:
        owner = request.owner_id or request.user_id or ANONYMOUS
    elif scope is _POLICY:
        owner = stored.policy_id
    elif scope is _PROVIDER:
        raise AssertionError("a provider's limits are charged with its candidate")
    else:
        assert_never(scope)
    return Charge(x, owner, units(x, request, max_cost))


def _max_attempts(request: DecideRequest, stored: StoredPolicy) -> int:
    """The request's option, else the maximum over all rules whose attributes match.

    Which rule applies is known only after a failure (`attempts.next_in_ms`).
    """
    if request.options.max_attempts is not None:
        return request.options.max_attempts
    policy = stored.policy
    if not policy.has_attributes:
        return policy.attempts
    return max([DEFAULT_ATTEMPTS, *(1 + r.retry for r in policy.fallbacks if attributes_match(r, request))])
