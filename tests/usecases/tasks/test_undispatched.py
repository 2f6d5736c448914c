"""An attempt that no stream is known to hold: who pays, who is told what, and what a result does all the same."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.tasks.task import Dispatched, Move, TaskRecord, TaskState
from router.usecases.tasks import sweep
from tests.fleet.harness import until
from tests.usecases.fakes.bus import Message
from tests.usecases.fakes.settling import INBOX, MAX_STEPS, RESERVED, TENANT, USED, Died, Fate, Hands, World, result

WORDS = "maximum messages exceeded"
End = Callable[[World, Hands, bytes], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other pod has the attempt in hand."""
    monkeypatch.setattr(sweep, "GRACE_MS", 0)


async def pushed(here: World, name: str = "r") -> bytes:
    """A task with a deadline of a millisecond that reserves tokens and the provider's only lease."""
    made = await here.ask(name, RESERVED, result_subject=INBOX, max_attempts=3, deadline_ms=1)
    assert isinstance(made, Admitted)
    return task_id(made.decision_id)


async def record_of(here: World, task: bytes) -> TaskRecord:
    """Its delivery record."""
    (record,) = await here.tasks.records([task])
    assert isinstance(record, TaskRecord)
    return record


async def refused(here: World, hands: Hands, task: bytes) -> None:
    """The server has refused every try."""
    del here
    hands.undispatched.end(task, 1, WORDS)
    await hands.undispatched.drained()


async def unanswered(here: World, hands: Hands, task: bytes) -> None:
    """Nobody has said anything until the deadline."""
    deadline_at_ms = (await record_of(here, task)).deadline_at_ms

    async def passed() -> bool:
        seconds, micros = await here.pod.nodes.call("TIME")
        return bool(int(seconds) * 1000 + int(micros) // 1000 > deadline_at_ms)

    await until(passed, 5, "the deadline has passed")
    await here.is_due(task)
    await hands.sweeper.poll()


async def tokens_left(here: World) -> int:
    """The largest estimate that the limit of 100 tokens admits; each question reserves nothing."""
    for tokens in (100, 100 - USED, 100 - RESERVED, 100 - USED - RESERVED):
        outcome = await here.ask(f"left-{tokens}", tokens)
        if not isinstance(outcome, LimitHit):
            return tokens
    return 0


def success(task: bytes) -> bytes:
    """A worker's result of the first attempt."""
    return result(assignment_id=to_text(assignment_id(task, 1)))


@pytest.mark.parametrize(
    ("end", "status", "code", "message", "left", "state", "why"),
    [
        (refused, "error", "DISPATCH_FAILED", WORDS, 100, TaskState.FAILED, Dispatched.FAILED),
        (unanswered, "timeout", "DEADLINE_EXCEEDED", "no stream confirmed", 40, TaskState.TIMED_OUT, Dispatched.OPEN),
    ],
)
async def test_its_end(
    world: Callable[[], Any], end: End, status: str, code: str, message: str, left: int, state: TaskState, why: int
) -> None:
    """Refused: an error with the server's words, and all reservations go back. Unanswered: a timeout, and they stand.
    There is no next attempt, and the breaker learns nothing."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    await end(here, hands, task)
    (told,) = here.told
    assert (told["status"], told["error_code"]) == (status, code)
    assert message in str(told["error_message"])
    record = await record_of(here, task)
    assert (record.state, record.why, record.open) == (state, why, True)
    assert await tokens_left(here) == left
    assert not [action for action in await here.actions() if action.startswith("breaker")]


@pytest.mark.parametrize("end", [refused, unanswered])
async def test_a_result_is_settled_once_after_such_an_end(world: Callable[[], Any], end: End) -> None:
    """A worker had it: metered once, with what it used charged whether the reservation stood or not. The caller keeps
    the one final result that it got."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    await end(here, hands, task)
    messages = [Message(n, success(task)) for n in range(1, 4)]
    await hands.settle.settle_batch(messages[:1])
    await hands.settle.settle_batch(messages[1:])
    await hands.outbox.drained()
    assert here.usage == [to_text(task)]
    assert {m.said[-1] for m in messages} == {"ack"}
    record = await record_of(here, task)
    assert (record.state, record.open) == (TaskState.SUCCEEDED, False)
    assert len(here.told) == 1
    assert (await here.actions()).count("result.duplicate") == 2
    assert await tokens_left(here) == 100 - USED


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("end", [refused, unanswered])
async def test_it_is_metered_once_whoever_dies(world: Callable[[], Any], end: End, after: bool) -> None:
    """The pod dies at each step of settling; the result is delivered again to another."""
    for at in range(MAX_STEPS):
        here: World = await world()
        task = await pushed(here)
        await end(here, here.hands(Fate()), task)
        fate, died = Fate(at, after=after), False
        try:
            first = here.hands(fate)
            await first.settle.settle_batch([Message(1, success(task))])
            await first.outbox.drained()
        except Died:
            died = True
            hands = here.hands(Fate())
            await hands.settle.settle_batch([Message(1, success(task), 2)])
            for _ in range(3):
                await hands.outbox.poll()
            await hands.outbox.drained()
        assert here.usage == [to_text(task)], at
        assert await tokens_left(here) == 100 - USED, at
        if not died:
            return
    raise AssertionError("it never ran to its end")


@pytest.mark.parametrize("end", [refused, unanswered])
async def test_an_error_of_a_worker_ends_it_without_a_next_attempt(world: Callable[[], Any], end: End) -> None:
    """The caller has its end already: nothing runs again, nothing is metered."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    await end(here, hands, task)
    await hands.settle.settle_batch([Message(1, success(task).replace(b'"success"', b'"error"'))])
    record = await record_of(here, task)
    assert (record.state, record.open) == (TaskState.FAILED, False)
    assert here.usage == []
    assert len(here.told) == 1


@pytest.mark.parametrize("end", [refused, unanswered])
async def test_a_result_that_meets_the_end_is_taken_again(
    world: Callable[[], Any], end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record was read as NEW, and the task ended before the move: it is looked up again, and settled."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    move = here.tasks.move

    async def ended_first(moves: Any) -> Any:
        monkeypatch.setattr(here.tasks, "move", move)
        await end(here, here.hands(Fate()), task)
        return await move(moves)

    monkeypatch.setattr(here.tasks, "move", ended_first)
    message = Message(1, success(task))
    await hands.settle.settle_batch([message])
    assert message.said == ["ack"]
    await hands.outbox.drained()
    assert here.usage == [to_text(task)]
    assert await tokens_left(here) == 100 - USED


@pytest.mark.parametrize("state", [TaskState.PUBLISHED, TaskState.ACCEPTED])
async def test_a_task_that_another_pod_has_published_goes_on(world: Callable[[], Any], state: TaskState) -> None:
    """Only a NEW attempt is ended: of the same number, too."""
    here: World = await world()
    task = await pushed(here)
    record = await record_of(here, task)
    mark = Move(
        TENANT, record.decision_id, None, b"", task_id=task, attempt=1, before_state=state, state=state, due_ms=2**42
    )
    hands = here.hands(Fate())
    hands.undispatched.end(task, 2, WORDS)
    await hands.undispatched.drained()
    assert (await record_of(here, task)).state is TaskState.NEW
    await here.tasks.move([mark])
    hands.undispatched.end(task, 1, WORDS)
    await hands.undispatched.drained()
    assert (await record_of(here, task)).state is state
    assert here.told == []


async def test_a_late_assignment_teaches_the_breaker_nothing(world: Callable[[], Any]) -> None:
    """It was stored, but too late: the attempt is timed out, with a next attempt, and without a verdict."""
    here: World = await world()
    task = await pushed(here)
    record = await record_of(here, task)
    moves: list[str] = []
    hands = here.hands(Fate())
    for why in (Dispatched.LATE, 0):
        timed_out = await hands.sweeper._timeout_move(replace(record, state=TaskState.PUBLISHED, why=why))
        moves.append(timed_out.verdict.name)
    assert moves == ["NEITHER", "FAILURE"]
