"""The plan cache of a policy: intermediate results of planning that later requests use again.

Nothing here survives the pod, and everything can be computed again.
"""

from msgspec import Struct

# Size of charges in the cache: their tuple, and per charge a struct and two slots.
_CHARGES_BYTES = 280
_CHARGE_BYTES = 88


class Memory(Struct):
    """The estimated memory of a plan cache's content."""

    size_bytes: int = 0


class PlanCache:
    """Intermediate results of planning by one policy. All caches compare equal, so they never make policies unequal.

    `charges`: those of a request without estimates; `varying`: the indexes of those that depend on the request.
    `orders` and `score_orders` belong to `domain.decide.orders`. The holder of many policies may call `forget` at any
    time to free memory.
    """

    __slots__ = ("charges", "memory", "orders", "score_orders", "varying")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop all results."""
        self.charges: tuple[object, ...] | None = None
        self.varying: tuple[int, ...] = ()
        self.orders: object = None
        self.score_orders: object = None
        self.memory = Memory()

    @property
    def size_bytes(self) -> int:
        """Estimated memory of the results."""
        return self.memory.size_bytes

    def keep_charges(self, charges: tuple[object, ...], varying: tuple[int, ...]) -> None:
        """Store the charges of a request without estimates, and which of them depend on the request."""
        self.charges, self.varying = charges, varying
        self.memory.size_bytes += _CHARGES_BYTES + len(charges) * _CHARGE_BYTES

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanCache)

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def __repr__(self) -> str:
        return "PlanCache()"
