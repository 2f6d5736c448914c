"""The orders of a policy's candidates, by slot.

The order of the pool comes from weighted rendezvous hashing (Highest Random Weight, logarithm method). A provider with
weight w has the score −w / ln(h), where h is uniform in (0, 1): the hash of (tenant, policy, slot) with the provider as
seed. If a provider is removed, only the requests of its own share move to other providers.

A slot is two bytes of a hash that a request has anyway: of its idempotency name, or with pins on of its session. With
65,536 slots a provider's share is within 0.5 points of its weight's. A busy policy therefore looks the order up in an
array of at most 128 KiB, which its requests fill. Other policies compute it from the same slot, so all pods agree.
"""

from array import array
from math import log
from typing import Final, assert_never

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from router.domain.decide.candidates import Candidate, ordered
from router.domain.decide.decision import CandidateVerdict, Reason
from router.domain.decide.figures import Share, Snapshot, shares_by_score
from router.domain.decide.request import NO_CONSTRAINTS, NO_STEP, DecideRequest
from router.domain.policy.model import StoredPolicy
from router.domain.policy.plan_cache import PlanCache
from router.domain.policy.vocabulary import Scope, Selection

SLOTS = 1 << 16
ARRAY_AFTER = 1_000
"""Number of requests after which a policy gets its array."""
MAX_ORDERS = 720
_PER_64 = 1.0 / (1 << 64)
# A member of an enum costs 60 ns on Python 3.11, a global 5.
_BEST_SCORE: Final = Selection.BEST_SCORE
_WEIGHTED: Final = Selection.WEIGHTED
# Estimated sizes: an empty table, an order with two tuples and a dict slot, and per candidate a struct and two slots.
_TABLE_BYTES = 700
_ORDER_BYTES = 240
_PLACE_BYTES = 88


class Order(Struct):
    """One order of a policy's candidates. `candidates` are valid for one `snapshot` of figures.

    `ranked`: indexes into the policy's pool. `number`: the order's place in its table; 0: it is not kept.
    """

    ranked: tuple[int, ...]
    number: int = 0
    snapshot: Snapshot | None = None
    candidates: tuple[Candidate, ...] = ()


class Orders:
    """The orders that one selection of one tenant's policy gives to the slots.

    `shared`: requests without constraints and steps have the candidates of their order; otherwise the candidates depend
    on the request. `snapshot` None: the orders do not depend on figures.
    """

    __slots__ = (
        "_fixed",
        "_key",
        "_memory",
        "_numbered",
        "_order_bytes",
        "_orders",
        "_requests",
        "_shares",
        "_slots",
        "policy_id",
        "shared",
        "size_bytes",
        "snapshot",
        "tenant_id",
    )

    def __init__(
        self, tenant_id: str, stored: StoredPolicy, shares: tuple[Share, ...], snapshot: Snapshot | None = None
    ) -> None:
        policy = stored.policy
        self.tenant_id = tenant_id
        self.policy_id = stored.policy_id
        self.snapshot = snapshot
        self.shared = not policy.has_attributes and not any(x.scope is Scope.PROVIDER for x in policy.limits)
        self._shares = shares
        # Neither separator can occur in the ids before it.
        self._key = f"{tenant_id}\0{stored.policy_id}\0".encode()
        ranks = {rank for rank, _, _, _ in shares}
        self._fixed = Order(tuple([s[3] for s in sorted(shares)])) if len(ranks) == len(shares) else None
        self._orders: dict[tuple[int, ...], Order] = {}
        self._numbered: list[Order | None] = [None]
        self._slots: array[int] | None = None
        self._requests = 0
        # Not the plan cache: a cycle would keep the orders of dropped policies until the garbage collector runs.
        self._memory = policy.plan_cache.memory
        names = {p.name for p in (*policy.pool, *policy.fallback_providers)}
        self._order_bytes = _ORDER_BYTES + len(names) * _PLACE_BYTES
        self.size_bytes = 0
        self._grow(_TABLE_BYTES if self._fixed is None else _TABLE_BYTES + self._order_bytes)

    def of(self, slot: int) -> Order:
        """The order of a slot. The same slot always has an equal order, and the same one while it is kept."""
        if self._fixed is not None:
            return self._fixed
        if self._slots is not None:
            kept = self._numbered[self._slots[slot]]
            if kept is not None:
                return kept
        ranked = self._ranked(slot)
        order = self._orders.get(ranked)
        if order is None:
            order = self._new(ranked)
        if self._slots is not None:
            self._slots[slot] = order.number
        elif self.snapshot is None:
            self._requests += 1
            # Where the orders do not fit, an array would be of little use.
            if self._requests >= ARRAY_AFTER and len(self._orders) < MAX_ORDERS:
                self._slots = array("H", bytes(2 * SLOTS))
                self._grow(2 * SLOTS)
        return order

    def _ranked(self, slot: int) -> tuple[int, ...]:
        """Indexes into the pool, by rank, then by weighted rendezvous of the slot."""
        key = self._key + slot.to_bytes(2)
        # (h + 0.5) / 2⁶⁴ is in (0, 1), so the logarithm is finite and negative.
        scored = [
            (rank, weight / log((xxh3_64_intdigest(key, seed) + 0.5) * _PER_64), i)
            for rank, weight, seed, i in self._shares
        ]
        scored.sort()
        return tuple([s[2] for s in scored])

    def _new(self, ranked: tuple[int, ...]) -> Order:
        if len(self._orders) >= MAX_ORDERS:
            return Order(ranked)
        order = self._orders[ranked] = Order(ranked, len(self._numbered))
        self._numbered.append(order)
        self._grow(self._order_bytes)
        return order

    def _grow(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self._memory.size_bytes += size_bytes


def in_order(
    request: DecideRequest,
    stored: StoredPolicy,
    snapshot: Snapshot,
    slot: int,
    *,
    best_score: bool,
    steps: bool = True,
) -> tuple[tuple[Candidate, ...], tuple[CandidateVerdict, ...]]:
    """Return the candidates in order, and the providers that the request's constraints exclude.

    `best_score`: whether the gate allows that selection. `steps`: whether it allows further attempts, also those that
    the caller makes by itself; else its step is ignored.
    """
    step = request.step if steps else NO_STEP
    selection = stored.policy.selection
    if selection is _BEST_SCORE:
        best = best_score
    elif selection is _WEIGHTED:
        best = False
    else:
        assert_never(selection)
    if best:
        reason, orders = Reason.BEST_SCORE, _by_score(request.tenant_id, stored, snapshot)
    else:
        reason, orders = Reason.WEIGHTED, _by_weight(request.tenant_id, stored)
    order = orders.of(slot)
    if not orders.shared or request.constraints is not NO_CONSTRAINTS or step is not NO_STEP:
        return ordered(request, step, stored, order.ranked, reason, snapshot)
    if order.snapshot is not snapshot:
        order.candidates, _ = ordered(request, step, stored, order.ranked, reason, snapshot)
        order.snapshot = snapshot
    return order.candidates, ()


def _by_weight(tenant_id: str, stored: StoredPolicy) -> Orders:
    """The orders by weight, from the policy's plan cache."""
    cache = stored.policy.plan_cache
    orders = cache.orders
    if not (isinstance(orders, Orders) and orders.tenant_id == tenant_id and orders.policy_id == stored.policy_id):
        _drop(cache, orders)
        orders = cache.orders = Orders(tenant_id, stored, stored.policy.shares)
    return orders


def _by_score(tenant_id: str, stored: StoredPolicy, snapshot: Snapshot) -> Orders:
    """The orders by score under these figures, from the policy's plan cache."""
    cache = stored.policy.plan_cache
    orders = cache.score_orders
    if not (
        isinstance(orders, Orders)
        and orders.snapshot is snapshot
        and orders.tenant_id == tenant_id
        and orders.policy_id == stored.policy_id
    ):
        _drop(cache, orders)
        shares = shares_by_score(stored.policy.pool, snapshot)
        orders = cache.score_orders = Orders(tenant_id, stored, shares, snapshot)
    return orders


def _drop(cache: PlanCache, orders: object) -> None:
    if isinstance(orders, Orders):
        cache.memory.size_bytes -= orders.size_bytes
