"""A tenant as operators see it: its switch, its levers, its breakers."""

from enum import IntEnum, StrEnum

from msgspec import Struct


class BreakerState(StrEnum):
    """The word in admin replies; the stored numbers are their order."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerView(Struct, frozen=True):
    """One breaker that is not closed and clean. `provider_entry` is its id; times are Redis ms, 0 for never.

    `forced`: an operator holds it open; the other figures are those of the breaker behind it, if there is one.
    """

    tenant_id: str
    provider_entry: bytes
    state: BreakerState
    opened_at_ms: int
    next_probe_at_ms: int
    failures_in_a_row: int
    forced: bool = False

    @property
    def why(self) -> str | None:
        """Why it is not closed, in words; None when it is."""
        if self.forced:
            return "forced open by an operator"
        if self.state is BreakerState.CLOSED:
            return None
        return f"{self.failures_in_a_row} failures in a row" if self.failures_in_a_row else "error rate"


class Lever(IntEnum):
    """The levers on a provider. The numbers are stored, and are the verdicts of a walk (`Verdict`)."""

    DRAINED = 6
    FORCED_OPEN = 7


class HeadView(Struct, frozen=True):
    """A tenant's switch and levers. The sets hold provider entries; `revision` is the tenant's."""

    tenant_id: str
    revision: int
    off: bool
    drained: frozenset[bytes] = frozenset()
    forced: frozenset[bytes] = frozenset()


NO_HEAD = HeadView("", 0, off=False)
"""The head of a tenant that never had a policy."""


class Pulled(IntEnum):
    """The result of an operator's act; the numbers are the scripts'."""

    CHANGED = 0
    UNCHANGED = 1
    UNKNOWN_TENANT = 2
    FULL = 3
