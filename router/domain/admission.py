"""Fair admission: which of many requests a pod takes, so that one tenant does not take all of it.

A pod holds at most `bound` requests. From half of it on, each tenant that has requests in the pod may hold an equal
share, and one share stays free for a tenant that has none: with n tenants, `bound` ÷ (n + 1), at least `MIN_SHARE`.
Without the free share a tenant that floods alone would fill the pod, and every other tenant's request would find it
full. All requests that wait for their tenant's policies count as one holder, `LOADING`: they may be of invented tenants.
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
    """Counts the requests in a pod, in all and by holder (a tenant, or `LOADING`)."""

    __slots__ = ("bound", "crowded_at", "held", "in_flight")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.crowded_at = max(1, bound // 2)
        """From this number in flight on, holders are held to their share."""
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
        """Count a request under another holder, whatever that one's share is."""
        self.leave(old)
        self.enter(new)

    @property
    def share(self) -> int:
        """The number of requests that each holder may have in flight while the pod is crowded."""
        return max(MIN_SHARE, self.bound // (len(self.held) + 1))

    def admits(self, holder: str) -> bool:
        """Whether one more request of this holder is within its share."""
        return self.held.get(holder, 0) < self.share
