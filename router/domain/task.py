"""A dispatched task as the fleet stores it, and the moves that the store makes for it."""

from enum import IntEnum

from msgspec import Struct

from router.domain.decision import Reason
from router.domain.policy.model import Breaker
from router.domain.result import NOTHING_TAUGHT, BreakerVerdict, Taught


class TaskState(IntEnum):
    """The state of a dispatched task; the numbers are stored and are the same in the scripts.

    `WAITING`: an attempt has failed and the next one is due. A task only moves to a greater number; a next attempt
    begins at `NEW` again.
    """

    NEW = 1
    PUBLISHED = 2
    ACCEPTED = 3
    WAITING = 4
    SUCCEEDED = 5
    FAILED = 6
    TIMED_OUT = 7
    CANCELLED = 8

    @property
    def final(self) -> bool:
        """Whether the state is final."""
        return self >= TaskState.SUCCEEDED

    @property
    def label(self) -> str:
        """The word in replies."""
        return self.name.lower()


FIRST_FINAL = TaskState.SUCCEEDED


class Reservation(Struct, frozen=True, array_like=True, omit_defaults=True):
    """Reserved units, or a lease, that a result settles. `units` −1: the chosen provider's cost.

    `owner` "" with scope provider stands for the chosen provider. `log`: the limit has `algorithm: log`.
    """

    scope: str
    owner: str
    resource: str
    entry: bytes
    window_ms: int
    units: int
    log: bool = False


class TaskFacts(Struct, frozen=True, array_like=True):
    """The facts that all attempts of a task share. `unfinished`: published only after its decision is finished.

    `max_attempts` is the number of attempts, or its bound if the matching rule decides (`by_rule`).
    """

    tenant_id: str
    policy_id: str
    policy_revision: int
    request_id: str
    task_type: str
    subject: str | None
    max_attempts: int
    attempt_ms: int
    result_subject: str | None
    trace_id: str | None
    run_id: str | None
    flow_id: str | None
    step_id: str | None
    idempotency_key: str | None
    user_id: str | None
    reserved: tuple[Reservation, ...]
    backoff_ms: int | None = None
    unfinished: bool = False
    by_rule: bool = False
    client_ip: str | None = None


class TaskRecord(Struct, frozen=True):
    """The delivery record of a task. Ids and `provider_entry` are bytes; times are Redis milliseconds.

    `why`: what ended the previous attempt, for a task that waits for the next one (`domain.attempts`).
    """

    state: TaskState
    attempt: int
    charged_ms: int
    deadline_at_ms: int
    decision_id: bytes
    provider_entry: bytes
    provider_id: str
    reason: Reason
    expected_latency_ms: int
    expected_cost_microusd: int
    facts: TaskFacts
    why: int = 0

    @property
    def unfinished(self) -> bool:
        """Whether its decision may still be taken back: it is unfinished, and not published yet."""
        return self.facts.unfinished and self.state is TaskState.NEW and self.attempt == 1


class Unreadable(Struct, frozen=True):
    """A delivery record that this version cannot read: damaged, or written by a newer pod. Keep it."""

    message: str


class Action(IntEnum):
    """The audit vocabulary with its stored numbers; the same in the scripts."""

    DECISION_MADE = 1
    DECISION_REFUSED = 2
    DECISION_CONFLICT = 3
    DECISION_DEGRADED = 4
    ASSIGNMENT_PUBLISHED = 5
    ASSIGNMENT_ACCEPTED = 6
    ASSIGNMENT_REJECTED = 7
    ASSIGNMENT_TIMED_OUT = 8
    RESULT_SETTLED = 9
    RESULT_LATE = 10
    RESULT_DUPLICATE = 11
    BREAKER_OPENED = 12
    BREAKER_HALF_OPENED = 13
    BREAKER_CLOSED = 14
    RESULT_VIOLATION = 15
    BREAKER_FORCED = 16
    POLICY_APPLIED = 17
    POLICY_DELETED = 18
    POLICY_ROLLED_BACK = 19
    PROVIDER_DRAINED = 20
    PROVIDER_ENABLED = 21
    TENANT_DISABLED = 22
    TENANT_ENABLED = 23
    TENANT_PURGED = 24
    GATE_CHANGED = 25
    ROLE_USED = 26

    @property
    def label(self) -> str:
        """The word, for example `decision.made`."""
        subject, _, verb = self.name.lower().partition("_")
        return f"{subject}.{verb}"


class Correction(Struct, frozen=True):
    """The difference between a reservation and the use: `delta` > 0 is charged now, `delta` < 0 is given back where it
    was charged.
    """

    reservation: Reservation
    owner: str
    delta: int


class Final(Struct, frozen=True):
    """The final result for the caller of a task: `body`, to `subject`.

    It is stored with the task's end until it is published. `spare` is stored instead of a body that is too large.
    """

    subject: str
    body: bytes
    spare: bytes | None = None


class Move(Struct, frozen=True):
    """One step of a task (`task_id`), or of an undispatched decision (`task_id` None), or a note in the audit.

    A task moves only if decision and attempt match and its state is below `below`. `due_ms` 0: nothing more is due.
    `verdict` and `breaker` teach the provider's breaker. `usage` goes into the outbox under the task's id, or the
    decision's. `final` is stored until it is published. `taught` goes into the provider's figures. `note`: only write
    the audit record.
    """

    tenant_id: str
    decision_id: bytes
    action: Action | None
    features: bytes
    code: int = 0
    task_id: bytes | None = None
    attempt: int = 0
    below: TaskState = FIRST_FINAL
    state: TaskState = TaskState.NEW
    keep_ms: int = 0
    due_ms: int = 0
    verdict: BreakerVerdict = BreakerVerdict.NEITHER
    breaker: Breaker | None = None
    provider_entry: bytes = bytes(8)
    usage: bytes = b""
    charged_ms: int = 0
    corrections: tuple[Correction, ...] = ()
    leases: tuple[Correction, ...] = ()
    note: bool = False
    why: int = 0
    taught: Taught = NOTHING_TAUGHT
    final: Final | None = None


class BreakerTurn(IntEnum):
    """The effect of a move on the breaker."""

    UNCHANGED = 0
    OPENED = 1
    HALF_OPENED = 2
    CLOSED = 3


class Moved(Struct, frozen=True):
    """The move was made."""

    turn: BreakerTurn


class NotMoved(Struct, frozen=True):
    """The move was not made: the state had changed; nothing was written. `state` None: the task (or decision) is
    unknown.
    """

    state: TaskState | None
    attempt: int


class MoveFault(Struct, frozen=True):
    """The script could not run this row: a bug, or a key of a wrong type."""

    message: str


MoveOutcome = Moved | NotMoved | MoveFault
