"""A result while it is being settled, and why one settles nothing."""

from enum import StrEnum

from msgspec import Struct

from router.domain.audit.records import TaskFeatures
from router.domain.decide.outcome import StoredAnswer
from router.domain.defects import note_of
from router.domain.tasks.result import ExecResult
from router.domain.tasks.steps import Ambiguous, StepDecision
from router.domain.tasks.task import Move, TaskRecord, Unreadable
from router.ports.bus import Delivery
from router.usecases.audit.features import features_of
from router.usecases.tasks.usage import facts_of


class Refusal(StrEnum):
    """Why a result settles nothing."""

    UNKNOWN = "unknown"
    LATE = "late"
    DUPLICATE = "duplicate"
    VIOLATION = "violation"
    UNREADABLE = "unreadable"
    FAULT = "fault"
    AMBIGUOUS = "ambiguous"


class OpenResult(Struct):
    """A result while it is being settled, with what is known of its task or decision.

    `record` belongs to a dispatched task, `remembered` to a decision that was not dispatched. `move` is the move that
    settles the result, if there is one. `note` is for the audit: a redrive, defects. `foreign`: it names another
    tenant's task. `unreadable` and `fault` hold the error text when the record or the move failed.

    `walk`: all decisions of the request, if its caller has walked the fallbacks and the result names only the request.
    `was_open`: the decision that was chosen among them was open. `ambiguous`: none could be chosen. `mark`: which
    result it is (`steps.mark_of`), of a result that names only its request.
    """

    delivery: Delivery
    result: ExecResult
    note: str | None = None
    record: TaskRecord | None = None
    remembered: StoredAnswer | None = None
    move: Move | None = None
    usage: bytes = b""
    foreign: bool = False
    unreadable: str = ""
    fault: str = ""
    walk: list[StepDecision] = []
    was_open: bool = False
    ambiguous: Ambiguous | None = None
    mark: bytes = b""

    @property
    def decision_id(self) -> bytes | None:
        """The decision that the result belongs to, as far as it is known."""
        if self.record is not None:
            return self.record.decision_id
        return None if self.remembered is None else self.remembered.decision_id

    def forget(self) -> None:
        """Forget what was looked up: since then another result may have settled the decision."""
        self.record = self.remembered = self.move = None
        self.usage, self.walk, self.was_open = b"", [], False

    def set_record(self, record: TaskRecord | Unreadable | None) -> None:
        """Take the store's record of the task, or the reason why it is unreadable."""
        if isinstance(record, Unreadable):
            self.unreadable = record.message
        else:
            self.record = record

    @property
    def failed(self) -> bool:
        """Whether the result could be neither settled nor refused."""
        return not self.foreign and bool(self.unreadable or self.fault)

    @property
    def provider_id(self) -> str:
        """The provider whose breaker the result concerns; empty when unknown."""
        if self.record is not None:
            return self.record.provider_id
        return "" if self.remembered is None else self.remembered.provider_id

    def features(self, attempt: int, note: str | None = None) -> TaskFeatures | None:
        """The features for the audit; None when neither task nor decision is known."""
        full_note = note_of(note, self.note)
        if self.record is not None:
            return features_of(self.record, attempt, self.result, note=full_note)
        return None if self.remembered is None else features_of_remembered(self.remembered, self.result, full_note)


def features_of_remembered(remembered: StoredAnswer, result: ExecResult, note: str | None) -> TaskFeatures:
    """The features of the result of a decision that was not dispatched."""
    facts = facts_of(remembered, result)
    return TaskFeatures(
        request_id=facts.request_id,
        policy_id=remembered.policy_id,
        policy_revision=remembered.policy_revision,
        provider_id=remembered.provider_id,
        assignment_id=None,
        user_id=facts.user_id,
        trace_id=facts.trace_id,
        status=result.status.value,
        error_code=result.error_code,
        latency_ms=result.latency_ms,
        cost_microusd=result.cost_microusd,
        tokens=result.tokens,
        note=note,
        ip_address=facts.client_ip,
    )
