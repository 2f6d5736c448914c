"""A tenant's switch, levers and breakers, as operators read and change them."""

from enum import IntEnum, StrEnum

from msgspec import Struct


class BreakerState(StrEnum):
    """The state of a breaker. The value is the word in admin replies; the stored number is the position here."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerView(Struct, frozen=True):
    """A breaker that is not closed, or has counted failures. `provider_entry` is its id; times are Redis ms, 0: never.

    `forced`: an operator holds it open. The other fields then describe the breaker's own state.
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
        """Why the breaker is not closed, for operators; None: it is closed."""
        if self.forced:
            return "forced open by an operator"
        if self.state is BreakerState.CLOSED:
            return None
        return f"{self.failures_in_a_row} failures in a row" if self.failures_in_a_row else "error rate"


class Lever(IntEnum):
    """The levers on a provider. The numbers are stored and equal the verdicts of a candidate walk (`Verdict`)."""

    DRAINED = 6
    FORCED_OPEN = 7


class TenantHead(Struct, frozen=True):
    """A tenant's switch (`off`) and levers. The sets hold provider entries. `revision` is the tenant's."""

    tenant_id: str
    revision: int
    off: bool
    drained: frozenset[bytes] = frozenset()
    forced: frozenset[bytes] = frozenset()


NO_HEAD = TenantHead("", 0, off=False)
"""The head of a tenant that never had a policy."""


class ActOutcome(IntEnum):
    """The result of an operator's act. The numbers are those that the scripts return.

    `FULL`: the tenant has as many levers as the store allows; nothing was written.
    """

    CHANGED = 0
    UNCHANGED = 1
    UNKNOWN_TENANT = 2
    FULL = 3
