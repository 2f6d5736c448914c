"""Which decision of a request a result belongs to."""

from typing import Any

import pytest

from router.domain.decide.decision import Reason
from router.domain.decide.outcome import StoredAnswer
from router.domain.tasks.steps import Ambiguous, StepDecision, choose, mark_of
from router.domain.tasks.task import TaskFacts, TaskRecord, TaskState

MARK = b"a result"
FACTS = TaskFacts("t", "p", 1, "r", "chat", None, 1, 1, None, None, None, None, None, None, None, ())


def decision(n: int, provider: str = "alpha", *, settled: bool = False, mark: bytes = b"") -> StepDecision:
    """The n-th decision of a request; 0 is the one without a step."""
    stored = StoredAnswer(bytes([n]) * 16, provider, Reason.WEIGHTED, "p", 1, 0, 0, False, False, settled, mark=mark)
    return StepDecision(stored, n * 10.5)


def pushed(n: int, state: TaskState | None) -> StepDecision:
    """One that was dispatched to alpha; its task is on its second attempt, at beta."""
    stored = StoredAnswer(bytes([n]) * 16, "alpha", Reason.WEIGHTED, "p", 1, 0, 0, True, False, False)
    if state is None:
        return StepDecision(stored, n)
    record = TaskRecord(state, 2, 0, 0, stored.decision_id, bytes(8), "beta", Reason.RETRY, 0, 0, FACTS)
    return StepDecision(stored, n, record)


def chosen(*decisions: StepDecision, provider: str | None = None) -> Any:
    """The number of the chosen decision, or those of the ambiguous ones."""
    for order in (decisions, decisions[::-1]):
        found = choose(order, provider, MARK)
    if isinstance(found, Ambiguous):
        return {i[0] for i in found.decision_ids}
    return found.answer.decision_id[0]


def test_the_newest_open_decision_of_the_provider() -> None:
    """Whatever the order in which they are listed; then the older ones; then the newest again, as a repeat."""
    a, b, c = decision(0), decision(1, "beta"), decision(2)
    assert chosen(a, b, c, provider="alpha") == 2
    assert chosen(a, b, decision(2, settled=True), provider="alpha") == 0
    assert chosen(decision(0, settled=True), b, decision(2, settled=True), provider="alpha") == 2
    assert chosen(a, b, c, provider="beta") == 1


@pytest.mark.parametrize("settled", [(), (1,), (0, 2), (0, 1, 2)])
def test_without_a_provider_the_only_open_one(settled: tuple[int, ...]) -> None:
    """Two open ones are ambiguous and named; none: a repeat."""
    decisions = [decision(n, p, settled=n in settled) for n, p in enumerate(("alpha", "beta", "gamma"))]
    opened = {0, 1, 2} - set(settled)
    expected = opened if len(opened) > 1 else min(opened, default=2)
    assert chosen(*decisions) == expected


def test_a_provider_that_none_has_is_ambiguous() -> None:
    """All decisions are named, the settled ones too: the caller has to say more."""
    assert chosen(decision(0, settled=True), decision(1), provider="gamma") == {0, 1}


def test_a_repeat_belongs_to_what_it_has_settled() -> None:
    """Whatever else is open, and whichever provider it names."""
    mine = decision(0, "beta", settled=True, mark=MARK)
    assert chosen(mine, decision(1), decision(2)) == 0
    assert chosen(mine, decision(1), provider="alpha") == 0


def test_a_dispatched_decision_is_as_its_task_is() -> None:
    """It has its attempt's provider, waits until the task ends, and has ended where there is no record."""
    assert chosen(pushed(1, TaskState.PUBLISHED), decision(2), provider="beta") == 1
    assert chosen(pushed(1, TaskState.PUBLISHED), decision(2)) == {1, 2}
    for state in (TaskState.FAILED, None):
        assert chosen(pushed(1, state), decision(2)) == 2


def test_a_mark_tells_messages_apart() -> None:
    """By their place in the stream and by their bytes."""
    marks = {mark_of(sequence, data) for sequence in (1, 2, 1 << 40) for data in (b"", b"a", b"b")}
    assert len(marks) == 9
    assert {len(m) for m in marks} == {8}
