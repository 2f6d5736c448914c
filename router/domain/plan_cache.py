"""Intermediate results of planning by one policy, for the next request."""

# An order in the cache: two tuples, a name and a dict slot; per candidate its struct and two slots.
_ORDER_BYTES = 280
_PLACE_BYTES = 88


class PlanCache:
    """Intermediate results of one policy, within a bound. It is not part of the policy: all caches compare equal.

    `by_score` and `orders` hold for one snapshot of figures. `size_bytes` estimates the size; the owner of many
    policies may call `forget` at any time.
    """

    __slots__ = ("by_score", "charges", "orders", "size_bytes", "snapshot")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop everything."""
        self.charges: tuple[object, ...] | None = None
        self.renew(None)

    def renew(self, snapshot: object) -> None:
        """Drop what depends on another snapshot."""
        self.snapshot = snapshot
        self.by_score: tuple[tuple[int, float, int, int], ...] | None = None
        self.orders: dict[object, object] = {}
        self.size_bytes = 0 if self.charges is None else _ORDER_BYTES + len(self.charges) * _PLACE_BYTES

    def keep_order(self, name: object, order: tuple[object, ...]) -> None:
        """Store an order of candidates."""
        self.orders[name] = order
        self.size_bytes += _ORDER_BYTES + len(order) * _PLACE_BYTES

    def keep_charges(self, charges: tuple[object, ...]) -> None:
        """Store the charges that do not depend on the request."""
        self.charges = charges
        self.size_bytes += _ORDER_BYTES + len(charges) * _PLACE_BYTES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanCache)

    __hash__ = None  # type: ignore[assignment]  # as any mutable value

    def __repr__(self) -> str:
        return "Memo()"
