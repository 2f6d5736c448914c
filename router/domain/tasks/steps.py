"""Finds the decision that a result belongs to, among all decisions of its request.

A caller that walks the fallbacks by itself asks again with a step in the context (`request.Step`). Each step has a
decision of its own, and a result that names only the request may belong to any of them.
"""

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

from router.domain.decide.outcome import StoredAnswer
from router.domain.tasks.task import TaskRecord

MAX_STEPS = 64
"""Steps of one request that the store lists; later ones are found by their decision_id or their context."""
MARK_BYTES = 8


class StepDecision(Struct, frozen=True):
    """A decision of a request, with the record of its task if it was dispatched and its record is known.

    `decided_ms`: Redis time, with the fraction of a ms; 0: the decision without a step, which counts as the oldest.
    """

    answer: StoredAnswer
    decided_ms: float
    record: TaskRecord | None = None

    @property
    def is_step(self) -> bool:
        """Whether the caller asked for it with a step."""
        return self.decided_ms > 0

    @property
    def provider_id(self) -> str:
        """The provider that was chosen; of a dispatched task the provider of its current attempt."""
        return self.answer.provider_id if self.record is None else self.record.provider_id

    @property
    def open(self) -> bool:
        """Whether a result can settle it. A dispatched task without a record ended long ago."""
        if self.answer.pushed:
            return self.record is not None and not self.record.state.final
        return not self.answer.settled


class Ambiguous(Struct, frozen=True):
    """The result belongs to one of these decisions and does not say which, or to none of them."""

    decision_ids: tuple[bytes, ...]


def mark_of(sequence: int, data: bytes) -> bytes:
    """The mark of a result: all deliveries of one message have the same, and every other message has another."""
    return blake2b(data, digest_size=MARK_BYTES, key=sequence.to_bytes(8)).digest()


def choose(decisions: Sequence[StepDecision], provider_id: str | None, mark: bytes) -> StepDecision | Ambiguous:
    """Choose the decision of a result that names only the request.

    A result that is delivered again belongs to the decision that it has settled. Otherwise it belongs to the newest
    open decision of its provider or, if it names no provider, to the only open one. If none of those is open, it
    repeats an earlier result: it belongs to the newest of them.

    `decisions`: at least one. `provider_id`: the provider that did the work; None: the result does not say.
    """
    for decision in decisions:
        if decision.answer.mark == mark:
            return decision
    fitting = [d for d in decisions if provider_id is None or d.provider_id == provider_id]
    waiting = [d for d in fitting if d.open]
    if not fitting or (provider_id is None and len(waiting) > 1):
        return Ambiguous(tuple(d.answer.decision_id for d in waiting or decisions))
    return max(waiting or fitting, key=lambda d: d.decided_ms)
