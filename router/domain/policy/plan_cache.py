"""The plan cache of a policy: intermediate results of planning that later requests use again.

Charges stay until `forget`. Orders of candidates depend on the learned figures, so a new snapshot drops them. Nothing
here survives the pod, and everything can be computed again.
"""

# Size of an order in the cache: two tuples, a name and a dict slot; per candidate a struct and two slots.
_ORDER_BYTES = 280
_PLACE_BYTES = 88


class PlanCache:
    """Intermediate results of planning by one policy. All caches compare equal, so they never make policies unequal.

    `by_score` and `orders` are valid for one `snapshot` of figures. `size_bytes` is an estimate; the holder of many
    policies may call `forget` at any time to free memory.
    """

    __slots__ = ("by_score", "charges", "orders", "size_bytes", "snapshot")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop all results."""
        self.charges: tuple[object, ...] | None = None
        self.renew(None)

    def renew(self, snapshot: object) -> None:
        """Start a new snapshot of figures, and drop the results that depend on the previous one."""
        self.snapshot = snapshot
        self.by_score: tuple[tuple[int, float, int, int], ...] | None = None
        self.orders: dict[object, object] = {}
        self.size_bytes = 0 if self.charges is None else _ORDER_BYTES + len(self.charges) * _PLACE_BYTES

    def keep_order(self, name: object, order: tuple[object, ...]) -> None:
        """Store an order of candidates."""
        self.orders[name] = order
        self.size_bytes += _ORDER_BYTES + len(order) * _PLACE_BYTES

    def keep_charges(self, charges: tuple[object, ...]) -> None:
        """Store the charges that are the same for every request."""
        self.charges = charges
        self.size_bytes += _ORDER_BYTES + len(charges) * _PLACE_BYTES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanCache)

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def __repr__(self) -> str:
        return "PlanCache()"
