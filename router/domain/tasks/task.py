"""A dispatched task as the fleet stores it, and the moves that change it.

The delivery record in Redis holds the state of a task. Each attempt goes NEW → PUBLISHED → ACCEPTED → a final state. If
an attempt fails and another is left, the task goes to WAITING, and the next attempt starts at NEW. A move compares
decision, attempt and state before it writes, so a repeated or outdated move changes nothing. After a crash, another pod
continues from the record.
"""

from enum import IntEnum

from msgspec import Struct

from router.domain.decide.decision import Reason
from router.domain.decide.outcome import Reservation
from router.domain.policy.model import Breaker
from router.domain.tasks.result import NO_MEASUREMENTS, BreakerVerdict, Measurements


class TaskState(IntEnum):
    """The state of a dispatched task. The numbers are stored and are the same in the scripts.

    Within an attempt a task only moves to greater numbers. `WAITING`: an attempt has failed, and the next is scheduled.
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


class Dispatched(IntEnum):
    """How the publication of an attempt went, where that matters later; stored as the `why` of the record.

    The numbers are above every HTTP number (`attempts.why_of`) and the same in the scripts. A task that ended as `OPEN`
    or `FAILED` is settled by a result all the same, once: a worker may have received the assignment.
    """

    LATE = 1001
    """Stored too late for the provider to be blamed for a missed deadline."""
    OPEN = 1002
    """Sent, and not known to be stored before the deadline: the task ended, and its reservations stand."""
    FAILED = 1003
    """Refused by the server, or never sent: the task ended, and its reservations were given back."""


class TaskFacts(Struct, frozen=True, array_like=True):
    """The facts that all attempts of a task share.

    - `max_attempts`: the number of attempts; with `by_rule` only its bound, because the fallback rule that matches a
      failure determines the number.
    - `unfinished`: the first attempt is published only after post extensions have confirmed the decision.
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
    """The delivery record of a task. Ids and `provider_entry` are bytes; times are Redis ms.

    `why`: what ended the previous attempt of a waiting task, as a number (`attempts.why_of`); of other tasks a
    `Dispatched`, or 0.
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
    def open(self) -> bool:
        """Whether the task has ended without a verdict on its work: a result is settled all the same."""
        return self.state.final and self.why in (Dispatched.OPEN, Dispatched.FAILED)

    @property
    def unfinished(self) -> bool:
        """Whether the decision can still be taken back: it is unfinished, and nothing was published."""
        return self.facts.unfinished and self.state is TaskState.NEW and self.attempt == 1


class Unreadable(Struct, frozen=True):
    """A stored value that this version cannot read: damaged, or written by a newer pod.

    Callers must keep it, so that an operator or a newer pod can still use it.
    """

    message: str


class Action(IntEnum):
    """The actions that the audit log records. The numbers are stored and are the same in the scripts."""

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
        """The action's name in audit entries, for example `decision.made`."""
        subject, _, verb = self.name.lower().partition("_")
        return f"{subject}.{verb}"


class Correction(Struct, frozen=True):
    """The difference between a reservation and the actual use.

    `delta` > 0: units that are charged now. `delta` < 0: units that are given back in the bucket that was charged.
    """

    reservation: Reservation
    owner: str
    delta: int


class Final(Struct, frozen=True):
    """The final result of a task for its caller: `body` is published to `subject`.

    The move that ends the task stores it until it is published. `spare`: what is stored instead if `body` is too large.
    """

    subject: str
    body: bytes
    spare: bytes | None = None


class Move(Struct, frozen=True):
    """One step of a task (`task_id`) or of an undispatched decision (`task_id` None), with all of its effects.

    The step is made only if decision and attempt match and the state is before `before_state`.

    - `keep_ms`: lifetime of the record of a task that ends. `due_ms`: Redis time at which the task is due again; 0:
      never.
    - `verdict`, `breaker`: how the result counts for the provider's breaker, and the breaker's settings.
    - `usage`: event for the outbox, under the id of the task or else of the decision.
    - `charged_ms`: time of the reservations, which `corrections` change. `leases`: concurrency leases to release.
    - `why`: what ended the attempt (`attempts.why_of`). `taught`: measurements for the provider's figures.
    - `final`: the final result, stored until it is published.
    - `mark`: which result it is (8 bytes), kept with the answer that it settles; empty: not kept.
    - `note`: write only the audit record.
    - `reopens`: the step is also made for a task that ended as `Dispatched.OPEN` or `Dispatched.FAILED`; the final
      result that is stored for it stays.
    """

    tenant_id: str
    decision_id: bytes
    action: Action | None
    features: bytes
    code: int = 0
    task_id: bytes | None = None
    attempt: int = 0
    before_state: TaskState = FIRST_FINAL
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
    reopens: bool = False
    why: int = 0
    taught: Measurements = NO_MEASUREMENTS
    final: Final | None = None
    mark: bytes = b""


class BreakerTurn(IntEnum):
    """The change of the breaker's state by a move."""

    UNCHANGED = 0
    OPENED = 1
    HALF_OPENED = 2
    CLOSED = 3


class Moved(Struct, frozen=True):
    """The move was made. `turn`: its effect on the provider's breaker."""

    turn: BreakerTurn


class NotMoved(Struct, frozen=True):
    """The move was not made, because the task or decision is in another state. Nothing was written.

    `state` and `attempt` are the current ones; `state` None: the task or decision is unknown.
    """

    state: TaskState | None
    attempt: int


class MoveFault(Struct, frozen=True):
    """The script failed on this move: a bug, or a key of the wrong type. Other moves are not affected."""

    message: str


MoveOutcome = Moved | NotMoved | MoveFault
