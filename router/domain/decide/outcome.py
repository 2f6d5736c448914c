"""The outcome of one decide row, as the store reports it."""

from msgspec import Struct

from router.domain.decide.decision import PinState, Reason
from router.domain.ids import owner_mark
from router.domain.json import JsonObject


class Observations(Struct, frozen=True):
    """What a row observed while it was executed, for explanations and the audit.

    - `left`: units that the limit of each charge had left before this row.
    - `waits`: ms until each candidate may be fit (None: unknown); empty unless several candidates were tried.
    - `left_pin`: the provider entry of a pin that was left. `pin_failed`: because the caller reported that provider as
      failed; otherwise it was not fit.
    - `own_left`: units that per-provider limits had left, by index of the candidate and index of its charge. It covers
      the candidates that such a limit refused, and the chosen one.
    """

    left: tuple[int, ...] = ()
    waits: tuple[int | None, ...] = ()
    left_pin: bytes | None = None
    own_left: dict[int, dict[int, int]] = {}
    pin_failed: bool = False


NOTHING_OBSERVED = Observations()


class Admitted(Struct, frozen=True):
    """Decided and written. `candidate` and the bytes of `verdicts` refer to the plan's candidates, in order.

    `decision_id` is 16 bytes. `shadow`: indexes of charges whose limit would have refused, but is in shadow mode.
    """

    candidate: int
    reason: Reason
    verdicts: bytes
    pin: PinState
    decision_id: bytes
    shadow: tuple[int, ...] = ()
    seen: Observations = NOTHING_OBSERVED


class RequestFacts(Struct, frozen=True, array_like=True, omit_defaults=True):
    """What events about the result of an undispatched decision repeat of its request.

    Only answers of metered requests hold it: it would double the size of an answer.
    """

    request_id: str
    task_type: str
    trace_id: str | None = None
    run_id: str | None = None
    flow_id: str | None = None
    step_id: str | None = None
    idempotency_key: str | None = None
    user_id: str | None = None
    client_ip: str | None = None


class Reservation(Struct, frozen=True, array_like=True, omit_defaults=True):
    """Reserved units, or a concurrency lease, that a result settles. `units` −1: the cost of the chosen provider.

    `owner` "" with scope provider: the chosen provider. `log`: the limit has `algorithm: log`.
    """

    scope: str
    owner: str
    resource: str
    entry: bytes
    window_ms: int
    units: int
    log: bool = False


class StoredAnswer(Struct, frozen=True):
    """The stored answer of a request, for replays and for results that callers report. It expires after 24 hours.

    `unfinished`: post extensions are still running, or their pod crashed; no caller has received the decision.
    `mark`: which result settled it (`steps.mark_of`); empty: it is open, or the result named exactly this decision.
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
    mark: bytes = b""
    facts: RequestFacts | None = None

    def is_of(self, tenant_id: str) -> bool:
        """Whether the answer belongs to this tenant. Answers of the first version have no mark and match any tenant."""
        return self.owner in (b"", owner_mark(tenant_id))


class Replay(Struct, frozen=True):
    """The same request was answered before. Nothing was written."""

    remembered: StoredAnswer


class Conflict(Struct, frozen=True):
    """A different request used the same idempotency name. Only an audit record was written."""


class LimitHit(Struct, frozen=True):
    """A limit refused the request. `charge`: index into the plan's charges.

    `retry_after_ms` None: the limit can never admit this request. `recorded` False: the audit log has no record of the
    refusal, because the limit is the tenant's quota of audit records.
    """

    charge: int
    retry_after_ms: int | None
    seen: Observations = NOTHING_OBSERVED
    recorded: bool = True


class NoCandidate(Struct, frozen=True):
    """No candidate is fit. `retry_after_ms`: time until the next probe or slot may be free; None: unknown."""

    verdicts: bytes
    retry_after_ms: int | None
    seen: Observations = NOTHING_OBSERVED


class TenantOff(Struct, frozen=True):
    """An operator has switched the tenant off."""


class Busy(Struct, frozen=True):
    """Another pod runs the extensions of the same request. Its claim lasts for `left_ms`."""

    left_ms: int


class RowFault(Struct, frozen=True):
    """The script failed on this row: a bug, or a key of the wrong type. Other rows of the batch are not affected."""

    message: str


class Unavailable(Struct, frozen=True):
    """The store did not answer. `sent`: the row was sent, so it may have been executed."""

    sent: bool


Outcome = Admitted | Replay | Conflict | LimitHit | NoCandidate | TenantOff | Busy | RowFault | Unavailable
