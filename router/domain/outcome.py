"""What one row of the batch came to, as the store saw it."""

from msgspec import Struct

from router.domain.decision import PinState, Reason
from router.domain.ids import owner_mark
from router.domain.json import JsonObject
from router.domain.task import Reservation


class Seen(Struct, frozen=True):
    """What a row saw on its way, for those who ask why.

    `left`: units that each charge's limit had before this row. `waits`: ms until each candidate may be fit (None:
    unknown), when more than one was looked at. `left_pin`: the provider entry of a pin that was left. `own_left`: by
    candidate and its own charge, the units that the limit had left: of one that turned a candidate away, and of the
    chosen one's.
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
    """What the store keeps of an answered request for 24 hours: enough to say the same decision again.

    `unfinished`: its post extensions are at work, or their pod died: nobody has been told of it.
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
        """Whether it is this tenant's. Answers of the first version, which had no mark, are whoever's asks."""
        return self.owner in (b"", owner_mark(tenant_id))


class Replay(Struct, frozen=True):
    """The same request was answered before; nothing was written."""

    remembered: Remembered


class Conflict(Struct, frozen=True):
    """The same key came with another request; audited, nothing else written."""


class LimitHit(Struct, frozen=True):
    """A limit refuses. `charge` indexes the plan's charges. `retry_after_ms` None: it can never pass.

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
    """An operator switched the tenant off."""


class Busy(Struct, frozen=True):
    """Somebody else prepares this very request, and has its claim for so long yet."""

    left_ms: int


class RowFault(Struct, frozen=True):
    """The script could not run this row (a bug, or a key of a wrong type); its neighbours ran."""

    message: str


class Unavailable(Struct, frozen=True):
    """The store did not answer. `sent`: the row may have been executed."""

    sent: bool


Outcome = Admitted | Replay | Conflict | LimitHit | NoCandidate | TenantOff | Busy | RowFault | Unavailable
