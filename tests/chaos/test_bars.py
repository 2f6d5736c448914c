"""Every bar can be missed: what a fleet must never show, shown to the bars."""

from collections import Counter
from typing import Any

import pytest

from router.domain.audit.records import AuditEntry
from router.domain.decide.decision import Reason
from router.domain.tasks.task import TaskFacts, TaskRecord, TaskState
from tests.chaos.bars import Bar, of_events, of_finals, of_requests, of_tasks
from tests.chaos.load import Asked

FACTS = TaskFacts("t", "default", 1, "r", "chaos", None, 3, 1000, None, None, None, None, None, None, None, ())


def entry(action: str, attempt: int | None = None, outcome: str | None = None) -> AuditEntry:
    """An entry of the request `r`."""
    details: dict[str, Any] = {"request_id": "r"} | ({} if attempt is None else {"attempt": attempt})
    return AuditEntry("1-0", 0, "t", action, "assignment", None, None, None, None, details, outcome)


def asked(*decisions: str) -> Asked:
    """A pushed request and what came back for it."""
    return Asked({"request_id": "r", "push_assignment": True}, 1, set(decisions))


def record(state: TaskState, attempt: int) -> TaskRecord:
    """The delivery record of the request `r`."""
    return TaskRecord(state, attempt, 0, 0, bytes(16), bytes(8), "p", Reason.WEIGHTED, 0, 0, FACTS)


MADE = entry("decision.made")
SUCCESS = entry("result.settled", 1, "success")
TIMED_OUT = entry("assignment.timed_out", 1, "timeout")


def missed(bars: list[Bar]) -> Counter[str]:
    """The names of the bars that are not held."""
    return Counter(bar.name for bar in bars if not bar.held)


@pytest.mark.parametrize(
    ("one", "audit", "names"),
    [
        (asked("d"), [MADE], ()),
        (asked(), [], ("without an answer", "not audited once")),
        (asked(), [MADE], ("accepted = answered", "without an answer")),
        (asked("d", "e"), [MADE, MADE], ("with two decisions", "not audited once")),
        (asked("d"), [MADE, MADE], ("not audited once",)),
    ],
)
def test_requests(one: Asked, audit: list[AuditEntry], names: tuple[str, ...]) -> None:
    """Answered once and decided once, or it shows."""
    found = missed(of_requests({"r": one}, {"t": audit}))
    assert len(found) == len(names)
    assert all(any(name in bar for bar in found) for name in names)


@pytest.mark.parametrize(
    ("state", "attempt", "audit", "names"),
    [
        (TaskState.SUCCEEDED, 1, [SUCCESS], ()),
        (TaskState.SUCCEEDED, 1, [TIMED_OUT, SUCCESS], ()),
        (TaskState.SUCCEEDED, 2, [TIMED_OUT, entry("result.settled", 2, "success")], ()),
        (TaskState.PUBLISHED, 1, [], ("dispatched = ended",)),
        (TaskState.SUCCEEDED, 1, [SUCCESS, SUCCESS], ("never or twice",)),
        (TaskState.SUCCEEDED, 1, [], ("never or twice", "another end")),
        (TaskState.SUCCEEDED, 2, [TIMED_OUT, SUCCESS, entry("result.settled", 2, "success")], ("never or twice",)),
        (TaskState.TIMED_OUT, 1, [SUCCESS], ("another end",)),
        (TaskState.FAILED, 1, [SUCCESS], ("another end",)),
    ],
)
def test_tasks(state: TaskState, attempt: int, audit: list[AuditEntry], names: tuple[str, ...]) -> None:
    """One end a task and one an attempt; a result that saves a late attempt before the next one is no second end."""
    found = missed(of_tasks({"r": record(state, attempt)}, {"t": audit}))
    assert len(found) == len(names)
    assert all(any(name in bar for bar in found) for name in names)


@pytest.mark.parametrize(
    ("statuses", "names"),
    [
        (["success"], ()),
        ([], ("told = tasks ended", "another end")),
        (["timeout"], ("another end",)),
        (["success", "success"], ()),
        (["success", "error"], ("told two ends",)),
    ],
)
def test_finals(statuses: list[str], names: tuple[str, ...]) -> None:
    """Told once, and as it ended, or it shows."""
    told: list[dict[str, Any]] = [{"request_id": "r", "status": status} for status in statuses]
    found = missed(of_finals({"r": record(TaskState.SUCCEEDED, 1)}, told, {}))
    assert len(found) == len(names)
    assert all(any(name in bar for bar in found) for name in names)


@pytest.mark.parametrize(
    ("note", "statuses", "names"),
    [
        ("no stream confirmed it", ["timeout", "timeout", "success"], ()),
        ("no stream confirmed it", ["timeout"], ()),
        ("no stream confirmed it", ["success", "timeout"], ("told two ends",)),
        ("no stream confirmed it", ["timeout", "error"], ("told two ends",)),
        ("", ["timeout", "success"], ("told two ends", "another end")),
    ],
)
def test_a_repeat_is_told_the_end_that_holds_then(note: str, statuses: list[str], names: tuple[str, ...]) -> None:
    """Only where nobody knew whether a worker had the attempt, and the last one told is the end."""
    first = entry("assignment.timed_out", 1, "timeout")
    first.details["note"] = note
    told: list[dict[str, Any]] = [{"request_id": "r", "status": status} for status in statuses]
    found = missed(of_finals({"r": record(TaskState.SUCCEEDED, 1)}, told, {"t": [first, SUCCESS]}))
    assert len(found) == len(names)
    assert all(any(name in bar for bar in found) for name in names)


@pytest.mark.parametrize(
    ("events", "names"), [(["a"], ()), ([], ("without their event",)), (["a", "a"], ("came twice",))]
)
def test_events(events: list[str], names: tuple[str, ...]) -> None:
    """One each, or it shows."""
    found = missed(of_events([{"assignment_id": "a"}], [{"assignment_id": a} for a in events]))
    assert len(found) == len(names)
    assert all(any(name in bar for bar in found) for name in names)
