"""The outcome of one row, as the store reports it."""

from msgspec import Struct

from router.domain.decision import PinState, Reason
from router.domain.ids import owner_mark
from router.domain.json import JsonObject
from router.domain.task import Reservation


class Seen(Struct, frozen=True):
    """What a row saw on its way, for explanations.

    `left`: units that the limit of each charge had before this row. `waits`: ms until each candidate may be fit (None:
    unknown), if more than one was tried. `left_pin`: the provider entry of a pin that was left. `own_left`: by
    candidate and its own charge, the units that the limit had left; for candidates that it turned away, and for the
    chosen one.
    """

    left: tuple[int, ...] = ()
    waits: tuple[int | None, ...] = ()
    left_pin: bytes | None = None
    own_left: dict[int, dict[int, int]] = {}


NOTHING_SEEN = Seen()


class Admitted(Struct, frozen=True):
    """Decided and written. `candidate` and `verdicts` index the plan's candidates; ids are 16 bytes."""

    candidate: int
    reason: Reason
    verdicts: bytes
    pin: PinState
    decision_id: bytes
    shadow: tuple[int, ...] = ()
    seen: Seen = NOTHING_SEEN


class Remembered(Struct, frozen=True):
    """The stored answer of a request, kept for 24 hours: enough to give the same decision again.

    `unfinished`: its post extensions are running, or their pod died; no caller has the decision yet.
    """

    decision_id: bytes
    provider_id: str
    reason: Reason
    policy_id: str
    policy_revision: int
    expected_latency_ms: int
    expected_cost_microusd: int
    pushed: bool
    fallback_used: bool
    settled: bool
    sticky_key: str | None = None
    requires_cp: tuple[str, ...] = ()
    charged_ms: int = 0
    reserved: tuple[Reservation, ...] = ()
    meter: bool = False
    unfinished: bool = False
    metadata: JsonObject = {}
    owner: bytes = b""

    def is_of(self, tenant_id: str) -> bool:
        """Whether it belongs to this tenant. Answers of the first version have no mark, and match any tenant."""
        return self.owner in (b"", owner_mark(tenant_id))


class Replay(Struct, frozen=True):
    """The same request was answered before; nothing was written."""

    remembered: Remembered


class Conflict(Struct, frozen=True):
    """Another request had the same key; audited, nothing else written."""


class LimitHit(Struct, frozen=True):
    """A limit refuses. `charge` indexes the plan's charges. `retry_after_ms` None: the request can never pass.

    `recorded` False: the limit is the tenant's quota of audit records, so the audit log has no record of the refusal.
    """

    charge: int
    retry_after_ms: int | None
    seen: Seen = NOTHING_SEEN
    recorded: bool = True


class NoCandidate(Struct, frozen=True):
    """Every candidate was passed over. `retry_after_ms`: when the next probe or slot is due, if one is."""

    verdicts: bytes
    retry_after_ms: int | None
    seen: Seen = NOTHING_SEEN


class TenantOff(Struct, frozen=True):
    """An operator has switched the tenant off."""


class Busy(Struct, frozen=True):
    """Another pod prepares the same request, and holds its claim for that time."""

    left_ms: int


class RowFault(Struct, frozen=True):
    """The script could not run this row (a bug, or a key of a wrong type); the other rows ran."""

    message: str


class Unavailable(Struct, frozen=True):
    """The store did not answer. `sent`: the row may have been executed."""

    sent: bool


Outcome = Admitted | Replay | Conflict | LimitHit | NoCandidate | TenantOff | Busy | RowFault | Unavailable
