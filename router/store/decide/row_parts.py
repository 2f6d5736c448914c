"""Parts that are the same for many rows, packed once: those of a policy, and those of each order of its candidates.

`plan` hands out the same tuples for the same candidates, so an object's identity is enough to find its packed form.
Parts live as long as their policy: a pod that drops a policy drops its packed parts too.
"""

from typing import assert_never
from weakref import ref

import msgspec
from msgspec import Struct, msgpack

from router.domain.audit.records import policy_frame
from router.domain.decide.candidates import Candidate
from router.domain.decide.plan import Plan
from router.domain.policy.model import AUDIT_QUOTA_ID, Limit, StoredPolicy
from router.domain.policy.vocabulary import Algorithm, Resource, Scope, WhenAllOpen
from router.store.decide.row_templates import ChargesTemplate, ReservedTemplate, reserved_template
from router.store.packing import offer, tail_head
from router.store.scripts import layouts

# All of a charge but its key and its units.
_LIMIT = layouts.CHARGE.only("kind", "limit")
_CANDIDATE = layouts.CANDIDATE.head
_KINDS = {Algorithm.SLIDING: layouts.KIND_SLIDING, Algorithm.LOG: layouts.KIND_LOG}
_ALL_OPEN = {WhenAllOpen.FAIL: 0, WhenAllOpen.PROBE_ONE: 1, WhenAllOpen.LAST_RESORT: 2}
_MAX_ORDERS = 1024
_pack = msgpack.Encoder().encode


class LimitPart(Struct, frozen=True):
    """The part of a charge that depends only on its limit: all but key index and units. `reserves`: a result settles
    it.

    `of_tenant`: it is counted in the tenant's own state.
    """

    packed: bytes
    reserves: bool
    of_tenant: bool


class OrderPart(Struct, frozen=True):
    """Candidates in one order. `packed` is None if they name keys; `frame` is the part of the audit record about policy
    and order.
    """

    candidates: tuple[Candidate, ...]
    packed: bytes | None
    frame: msgspec.Raw


class PolicyPart(Struct, frozen=True):
    """The part of every row of a stored policy. `limits` are those of its plans' charges, in their order.

    `charges`, `reserved`: templates; None: the rows of this policy are packed field by field.
    """

    tail_head: bytes
    all_open: int
    probes: int
    limits: tuple[LimitPart, ...]
    reserving: tuple[int, ...]
    by_candidate: bool
    orders: dict[int, OrderPart]
    charges: ChargesTemplate | None
    reserved: ReservedTemplate | None


class PolicyParts:
    """The parts of every policy that is in use. `script` names the version of the script that rows are for."""

    def __init__(self, script: str) -> None:
        self._script = script
        self._parts: dict[int, tuple[ref[StoredPolicy], PolicyPart]] = {}

    def of(self, stored: StoredPolicy) -> PolicyPart:
        """The part of a policy."""
        known = id(stored)
        found = self._parts.get(known)
        if found is not None and found[0]() is stored:
            return found[1]
        part = _policy_part(stored)
        self._parts[known] = ref(stored, lambda _: self._parts.pop(known, None)), part
        return part

    def order(self, part: PolicyPart, plan: Plan) -> OrderPart:
        """The part of a plan's candidates."""
        candidates = plan.candidates
        orders = part.orders
        found = orders.get(id(candidates))
        if found is not None and found.candidates is candidates:
            return found
        if len(orders) >= _MAX_ORDERS:
            orders.clear()
        frame = msgspec.Raw(_pack(policy_frame(plan, self._script)))
        order = orders[id(candidates)] = OrderPart(candidates, _plain(candidates), frame)
        return order


def _policy_part(stored: StoredPolicy) -> PolicyPart:
    policy, breaker = stored.policy, stored.policy.breaker
    charged = [x for x in policy.limits if x.scope is not Scope.PROVIDER]
    limits = tuple(limit_part(x) for x in charged)
    reserving = tuple(i for i, x in enumerate(limits) if x.reserves)
    others = [x for x in policy.limits if x.scope is Scope.PROVIDER and x.resource is not Resource.REQUESTS]
    bounds = any(p.max_concurrency for p in (*policy.providers, *policy.fallback_providers))
    by_candidate = bool(others) or bounds
    return PolicyPart(
        tail_head(stored.policy_id, stored.revision),
        0 if breaker is None else _ALL_OPEN[breaker.when_all_open],
        0 if breaker is None else breaker.half_open_max_calls,
        limits,
        reserving,
        by_candidate,
        {},
        ChargesTemplate([x.packed for x in limits]) if all(x.of_tenant for x in limits) else None,
        None if by_candidate else reserved_template(charged, reserving, stored.policy_id),
    )


def limit_part(limit: Limit) -> LimitPart:
    """The part of a charge that depends only on its limit."""
    options = layouts.CHARGE_SHADOW if limit.shadow else layouts.CHARGE_RECORDS if limit.id == AUDIT_QUOTA_ID else 0
    kind = charge_kind(limit)
    window_ms = 0 if kind == layouts.KIND_CONCURRENCY else limit.window_ms
    return LimitPart(
        _LIMIT.pack(kind, options, limit.entry, window_ms, limit.limit),
        limit.resource is not Resource.REQUESTS,
        kind == layouts.KIND_SLIDING and limit.scope is Scope.TENANT,
    )


def charge_kind(limit: Limit) -> int:
    """The kind of counter of a limit, by its number in `layouts`."""
    match limit.resource:
        case Resource.CONCURRENCY:
            return layouts.KIND_CONCURRENCY
        case Resource.REQUESTS | Resource.TOKENS | Resource.COST:
            return _KINDS[limit.algorithm]
        case _:
            assert_never(limit.resource)


def candidate_head(c: Candidate, lease: int) -> bytes:
    """A candidate without its charges; `lease` is the index of its own bound's key, 0: it has none."""
    blob = offer(c)
    bound = c.provider.max_concurrency
    return _CANDIDATE.pack(c.provider.entry, c.reason, bound, lease, len(c.charges), len(blob)) + blob


def _plain(candidates: tuple[Candidate, ...]) -> bytes | None:
    """The packed candidates if none names a key, else None."""
    if any(c.provider.max_concurrency or c.charges for c in candidates):
        return None
    return b"".join(candidate_head(c, 0) for c in candidates)
