"""The end of a task reaches the caller who asked for it, whoever dies between the end and the telling."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.tasks.task import Final, Move, TaskRecord, TaskState
from router.ports.bus import Publication, Published
from router.usecases.tasks.final_results import FinalResults
from tests.fleet.harness import until
from tests.usecases.fakes.bus import Message
from tests.usecases.fakes.settling import INBOX, MAX_STEPS, Died, Fate, Hands, World, result

ONCE: dict[str, Any] = {"result_subject": INBOX, "max_attempts": 1}


async def dispatched(here: World, **options: Any) -> bytes:
    """A task of one attempt whose caller waits for its end."""
    made = await here.ask("r", 1, **ONCE | options)
    assert isinstance(made, Admitted)
    return task_id(made.decision_id)


async def missed(here: World, hands: Hands, task: bytes) -> None:
    """It was published, and nobody has done it in time: its deadline of a millisecond has passed."""
    (record,) = await here.tasks.records([task])
    assert isinstance(record, TaskRecord)
    if record.state is TaskState.NEW:
        published = Move(record.facts.tenant_id, record.decision_id, None, b"", task_id=task, attempt=record.attempt)
        state = TaskState.PUBLISHED
        await here.tasks.move([replace(published, before_state=state, state=state, due_ms=record.deadline_at_ms)])

    async def passed() -> bool:
        seconds, micros = await here.pod.nodes.call("TIME")
        return bool(int(seconds) * 1000 + int(micros) // 1000 >= record.deadline_at_ms)

    await until(passed, 5, "the deadline has passed")
    await here.is_due(task)
    await hands.sweeper.poll()


async def rejected(here: World, hands: Hands, task: bytes, delivered: int = 1) -> None:
    """No worker will do it."""
    ack = {"assignment_id": to_text(assignment_id(task, 1)), "status": "rejected"}
    await hands.acks.receive([Message(7, orjson.dumps(ack), delivered)])


async def hopeless(here: World, hands: Hands, task: bytes) -> None:
    """No provider is left for it."""
    (record,) = await here.tasks.records([task])
    assert isinstance(record, TaskRecord)
    if not record.state.final:
        await hands.effects.give_up(record, "ALL_PROVIDERS_FAILED")


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (missed, "timeout", "DEADLINE_EXCEEDED"),
        (rejected, "error", "REJECTED"),
        (hopeless, "error", "ALL_PROVIDERS_FAILED"),
    ],
)
@pytest.mark.parametrize("after", [True, False])
async def test_an_end_is_told_whoever_dies(
    world: Callable[[], Any], end: Any, status: str, code: str, after: bool
) -> None:
    """At every step, before and after it: told at least once, always the same, and then nothing is due any more."""
    for at in range(MAX_STEPS):
        here: World = await world()
        task = await dispatched(here, deadline_ms=1)
        fate, died = Fate(at, after=after), False
        try:
            await end(here, first := here.hands(fate), task)
            await first.final_results.drained()
        except Died:
            died = True
            hands = here.hands(Fate())
            await end(here, hands, task)
            if await here.is_due(task):
                await hands.sweeper.poll()
            await hands.final_results.drained()
        assert {(t["status"], t["error_code"], t["task_id"]) for t in here.told} == {(status, code, to_text(task))}
        assert not await here.is_due(task)
        assert await here.tasks.final_results([task]) == [None]
        if not died:
            assert at >= 2
            return
    raise AssertionError("an end of endless acts")


async def test_the_first_end_is_the_one_that_is_told(world: Callable[[], Any]) -> None:
    """A rejection that comes again after the task has failed otherwise tells nobody anything."""
    here: World = await world()
    task = await dispatched(here)
    hands = here.hands(Fate())
    failed = result(assignment_id=to_text(assignment_id(task, 1)), status="error", error_code="BAD_INPUT")
    await hands.settle.settle_batch([Message(1, failed)])
    await rejected(here, hands, task, delivered=2)
    await hands.settle.settle_batch([Message(2, failed, delivered=2)])
    await hands.final_results.drained()
    assert [t["error_code"] for t in here.told] == ["BAD_INPUT"]


async def test_a_task_that_ends_while_it_is_looked_at(
    world: Callable[[], Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deadline has passed, it waits for its next attempt, and the late success comes between the sweeper's two
    reads: the sweeper takes it for ended, not for a task whose work item is damaged."""
    here: World = await world()
    made = await here.ask("r", 1, result_subject=INBOX, max_attempts=2, deadline_ms=1)
    task = task_id(made.decision_id)
    hands = here.hands(Fate())
    await missed(here, hands, task)
    (record,) = await here.tasks.records([task])
    assert isinstance(record, TaskRecord)
    assert record.state is TaskState.WAITING
    assert await here.is_due(task)
    done = result(assignment_id=to_text(assignment_id(task, 1)))
    reads: list[str] = []

    def ending(name: str) -> Any:
        read = getattr(here.tasks, name)

        async def and_then(task_ids: Any) -> Any:
            found = await read(task_ids)
            reads.append(name)
            if len(reads) == 1:
                await here.hands(Fate()).settle.settle_batch([Message(1, done)])
            return found

        return and_then

    for name in ("records", "jobs"):
        monkeypatch.setattr(here.tasks, name, ending(name))
    await hands.sweeper.poll()
    await hands.final_results.drained()
    assert {t["status"] for t in here.told} == {"success"}
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []


async def test_a_pod_without_nats_claims_nothing(world: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It could publish nothing, and its claims would keep the tasks from pods that can."""
    here: World = await world()
    task = await dispatched(here, deadline_ms=1)
    assert await here.is_due(task)
    sweeper, asked = here.hands(Fate()).sweeper, asyncio.Semaphore(0)

    def may_work() -> bool:
        asked.release()
        return False

    monkeypatch.setattr(sweeper, "_may_work", may_work)
    monkeypatch.setattr(sweeper, "_every_s", 0.001)
    running = asyncio.create_task(sweeper.run())
    for _ in range(10):
        await asyncio.wait_for(asked.acquire(), 5)
    running.cancel()
    assert (await here.tasks.claim(0, maximum=10)).task_ids == (task,)


async def test_a_large_output_is_told_whole_and_kept_without(world: Callable[[], Any]) -> None:
    """The store holds no more for a caller than it held of the task."""
    here: World = await world()
    task = await dispatched(here)
    done = result(assignment_id=to_text(assignment_id(task, 1)), output={"text": "x" * 100_000})
    with pytest.raises(Died):
        await here.hands(Fate(3, after=True)).settle.settle_batch([Message(1, done)])
    (told,) = here.told
    assert len(orjson.dumps(told)) > 100_000
    (kept,) = await here.tasks.final_results([task])
    assert isinstance(kept, Final)
    assert len(kept.body) < 1000
    assert orjson.loads(kept.body) == {k: v for k, v in told.items() if k != "output"} | {
        "truncated": True,
        "output_dropped": True,
    }


class Wire:
    """A stream that acks with `outcome`, and a line that is lost when told so."""

    def __init__(self) -> None:
        self.connection = 1
        self.loses = False
        self.outcome = Published.STORED
        self.told: list[bytes] = []
        self.cleared: list[bytes] = []

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """`ports.bus.Publisher`."""
        self.told.append(publication.payload)
        asyncio.get_running_loop().call_soon(done, self.outcome)

    async def flush(self) -> None:
        """`ports.bus.Line`."""
        self.connection += self.loses


@pytest.mark.parametrize(
    ("outcome", "loses", "cleared"),
    [
        (Published.STORED, False, True),
        (Published.DUPLICATE, False, True),
        (Published.REFUSED, False, False),
        (Published.STORED, True, False),
    ],
)
async def test_only_what_arrived_is_told(
    world: Callable[[], Any], outcome: Published, loses: bool, cleared: bool
) -> None:
    """A failed publish, or a connection that was lost with it, leaves it due: the sweeper tells it again."""
    here: World = await world()
    task = await dispatched(here, deadline_ms=1)
    with pytest.raises(Died):
        await missed(here, here.hands(Fate(3, after=True)), task)
    wire = Wire()
    wire.outcome, wire.loses = outcome, loses
    final_results = FinalResults(here.tasks, wire, wire, here.telemetry)
    for _ in range(2):
        final_results.publish(task, Final(INBOX, b"body"))
    await asyncio.sleep(0)
    await final_results.drained()
    assert wire.told == [b"body"]
    assert await here.is_due(task) is not cleared
    final_results.publish(task, Final(INBOX, b"body"))
    assert len(wire.told) == 2
    await asyncio.sleep(0)
    await final_results.drained()
