"""What planning by a policy has worked out once, and need not work out for the next request."""

# An order in a memo: two tuples, a name and the place in a dict; and for each candidate its struct and two slots.
_ORDER_BYTES = 280
_PLACE_BYTES = 88


class PlanCache:
    """What was worked out from a policy before, within a bound. It is no part of the policy: memos are always equal.

    `by_score` and `orders` hold for one snapshot of live figures. `size_bytes`: about what it takes; whoever holds many
    policies may `forget` it at any time.
    """

    __slots__ = ("by_score", "charges", "orders", "size_bytes", "snapshot")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Work it out again."""
        self.charges: tuple[object, ...] | None = None
        self.renew(None)

    def renew(self, snapshot: object) -> None:
        """Forget what held for another snapshot."""
        self.snapshot = snapshot
        self.by_score: tuple[tuple[int, float, int, int], ...] | None = None
        self.orders: dict[object, object] = {}
        self.size_bytes = 0 if self.charges is None else _ORDER_BYTES + len(self.charges) * _PLACE_BYTES

    def keep_order(self, name: object, order: tuple[object, ...]) -> None:
        """Remember an order of candidates."""
        self.orders[name] = order
        self.size_bytes += _ORDER_BYTES + len(order) * _PLACE_BYTES

    def keep_charges(self, charges: tuple[object, ...]) -> None:
        """Remember the charges that do not depend on the request."""
        self.charges = charges
        self.size_bytes += _ORDER_BYTES + len(charges) * _PLACE_BYTES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanCache)

    __hash__ = None  # type: ignore[assignment]  # as any mutable value

    def __repr__(self) -> str:
        return "Memo()"
