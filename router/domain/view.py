"""What operators see of a tenant's breakers."""

from enum import StrEnum

from msgspec import Struct


class BreakerState(StrEnum):
    """As told in admin replies; the stored numbers are their order."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerView(Struct, frozen=True):
    """One breaker that is not plainly closed and clean. `provider_entry` is its id; times are Redis ms, 0 for never."""

    tenant_id: str
    provider_entry: bytes
    state: BreakerState
    opened_at_ms: int
    next_probe_at_ms: int
    failures_in_a_row: int
