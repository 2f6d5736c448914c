"""Fair admission: which requests a crowded pod accepts, so that one tenant cannot take all of its places.

A pod holds at most `bound` requests. From half of it on, a tenant may have as many requests in the pod as there are
free places, and always `MIN_SHARE`. So n tenants that flood the pod hold `bound` ÷ (n + 1) places each, and one such
share stays free for tenants that have no request in the pod. All requests that wait for their tenant's policies count
as one holder, `LOADING`, because their tenants may not exist.

The rule is the dynamic threshold of shared switch buffers (Choudhury and Hahne, 1998) with α = 1. An equal share,
`bound` ÷ n, would leave no place free: a single tenant that floods would fill the pod, and the next tenant would be
refused.
"""

from enum import StrEnum
from typing import Final

LOADING: Final = ""
"""The holder of requests that wait for their tenant's policies; no tenant has this name."""

MIN_SHARE: Final = 8


class Shed(StrEnum):
    """Why a request was refused as overload before it was read."""

    FULL = "full"
    TENANT = "tenant"
    LOADING = "loading"
    STALE = "stale"


class Admission:
    """Counts the requests in a pod, in all and by holder: a tenant, or `LOADING`."""

    __slots__ = ("bound", "crowded_at", "held", "in_flight")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.crowded_at = max(1, bound // 2)
        """The number of requests in flight from which each holder is limited to its share."""
        self.in_flight = 0
        self.held: dict[str, int] = {}

    def enter(self, holder: str) -> None:
        """Count a request in."""
        self.in_flight += 1
        self.held[holder] = self.held.get(holder, 0) + 1

    def leave(self, holder: str) -> None:
        """Count a request out."""
        self.in_flight -= 1
        rest = self.held[holder] - 1
        if rest:
            self.held[holder] = rest
        else:
            del self.held[holder]

    def move(self, old: str, new: str) -> None:
        """Count a request under another holder, even beyond that holder's share."""
        self.leave(old)
        self.enter(new)

    @property
    def share(self) -> int:
        """The number of requests that a holder may have in flight now, if the pod is crowded."""
        return max(MIN_SHARE, self.bound - self.in_flight)

    def admits(self, holder: str) -> bool:
        """Whether one more request of this holder is within its share."""
        return self.held.get(holder, 0) < self.share
