"""A repeat of a finished task gets its end, on the subject that the repeat names."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from router.domain.decide.outcome import Admitted, Replay
from router.domain.decide.request import Options
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.json import JsonObject
from router.usecases.tasks.final_results import FinalKeep
from tests.fleet.harness import until
from tests.store.harness import request
from tests.usecases.fakes.bus import Message
from tests.usecases.fakes.settling import INBOX, TENANT, Died, Fate, Hands, World, result

AGAIN = "_INBOX.again"
NOTHING_S = 0.02
"""How long a test waits to see that nothing happens."""
SMALL, LARGEST = {"text": "done"}, "x" * 4_094
MARKS = {"output_dropped": True, "truncated": True}


async def pushed(here: World, name: str = "r", **options: Any) -> bytes:
    """A task; its caller waits for its end, unless `result_subject` is None."""
    made = await here.ask(name, 1, push=True, **{"result_subject": INBOX, "max_attempts": 1} | options)
    assert isinstance(made, Admitted)
    return task_id(made.decision_id)


async def ended(here: World, task: bytes, **said: Any) -> None:
    """A worker's result; its pod has published the end."""
    hands = here.hands(Fate())
    await hands.settle.settle_batch([Message(1, result(assignment_id=to_text(assignment_id(task, 1)), **said))])
    await hands.final_results.drained()


async def repeat(here: World, hands: Hands, name: str = "r", subject: str | None = AGAIN) -> None:
    """The request again; the pod answers it with a replay."""
    replayed = await here.ask(name, 1, push=True, result_subject=subject, max_attempts=1)
    assert isinstance(replayed, Replay)
    wanted = request(TENANT, name, push=True, options=Options(result_subject=subject))
    hands.repeats.replayed(wanted, replayed.remembered)


async def end_again(here: World, name: str = "r") -> JsonObject:
    """What a repeat gets."""
    before = len(here.repeated)
    await repeat(here, here.hands(Fate()), name)

    async def published() -> bool:
        return len(here.repeated) > before

    await until(published, 5, "the end is published again")
    subject, body = here.repeated[-1]
    assert subject == AGAIN
    return body


@pytest.mark.parametrize(
    "said",
    [
        {"output": SMALL},
        {},
        {"output": LARGEST},
        {"output": ["\u00e9" * 1_000]},
        {"status": "error", "error_code": "BAD_INPUT", "error_message": "no such file"},
        {"status": "timeout"},
        {"status": "cancelled", "output": None},
    ],
)
async def test_the_end_is_published_again_as_it_was(world: Callable[[], Any], said: JsonObject) -> None:
    """Success or failure, with an output of up to 4 KiB: the same message, however often."""
    here: World = await world()
    task = await pushed(here)
    await ended(here, task, **said)
    (told,) = here.told
    assert [await end_again(here) for _ in range(3)] == [told] * 3
    assert len(set(here.message_ids)) == 3, "a stream must not take a repeat for the first copy"


@pytest.mark.parametrize("output", [LARGEST + "x", {"pages": ["x" * 50_000]}, "x" * 100_000])
async def test_a_large_output_is_dropped(world: Callable[[], Any], output: Any) -> None:
    """The first copy has it whole; what is kept says that it had one."""
    here: World = await world()
    await ended(here, await pushed(here), output=output)
    (told,) = here.told
    assert told["output"] == output
    assert await end_again(here) == {k: v for k, v in told.items() if k != "output"} | MARKS


@pytest.mark.parametrize(("share", "whole"), [(0.79, True), (0.8, False), (0.99, False)])
async def test_a_store_that_fills_keeps_no_output(world: Callable[[], Any], share: float, whole: bool) -> None:
    """From 80 % of maxmemory on; everything else of the end is kept."""
    here: World = await world()
    here.memory_share = share
    await ended(here, await pushed(here), output=SMALL, latency_ms=7)
    again = await end_again(here)
    assert ("output" in again) is whole
    assert again["latency_ms"] == 7


async def test_a_full_store_loses_no_end(world: Callable[[], Any]) -> None:
    """Redis refuses to keep it: the end is not published over and over, and the tombstone has it."""
    here: World = await world()
    task = await pushed(here)
    keys = here.pod.keys
    refused = here.tasks._nodes.gather

    async def gather(commands: Any) -> Any:
        if any(c[:2] == ("SET", keys.final(task)) for c in commands):
            await refused([("SET", keys.final(task), "x", "NONSENSE")])
        return await refused(commands)

    here.tasks._nodes.gather = gather  # type: ignore[method-assign]
    try:
        await ended(here, task, output=SMALL)
    finally:
        here.tasks._nodes.gather = refused  # type: ignore[method-assign]
    assert not await here.is_due(task)
    assert (await end_again(here))["status"] == "success"


@pytest.mark.parametrize("status", ["success", "error", "timeout", "cancelled"])
@pytest.mark.parametrize("why", ["later", "not kept", "not asked for"])
async def test_the_tombstone_knows_the_end(world: Callable[[], Any], status: str, why: str) -> None:
    """After ROUTER_FINAL_KEEP, without it, or when only the repeat wants the end: the end without output."""
    here: World = await world()
    if why == "not kept":
        here.keep = FinalKeep(keep_ms=0, max_output_bytes=4_096)
    task = await pushed(here, result_subject=None if why == "not asked for" else INBOX)
    await ended(here, task, output=SMALL, latency_ms=7, status=status)
    if why == "later":
        assert await here.pod.nodes.call("DEL", here.pod.keys.final(task)) == 1
    assert await here.pod.nodes.call("EXISTS", here.pod.keys.final(task)) == 0
    again = await end_again(here)
    assert {k: v for k, v in again.items() if v is not None} == MARKS | {
        "ok": status == "success",
        "task_id": to_text(task),
        "assignment_id": to_text(assignment_id(task, 1)),
        "attempt": 1,
        "status": status,
        "provider_id": "only",
        "request_id": "r",
        "tenant_id": TENANT,
    }


async def test_the_tombstone_says_that_nothing_ran(world: Callable[[], Any]) -> None:
    """A task that reached no stream is told as such, with the server's words while its end is kept."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    hands.undispatched.end(task, 1, "maximum messages exceeded")
    await hands.undispatched.drained()
    await hands.final_results.drained()
    assert (await end_again(here))["error_message"] == "maximum messages exceeded"
    await here.pod.nodes.call("DEL", here.pod.keys.final(task))
    again = await end_again(here)
    assert (again["status"], again["error_code"], again["ok"]) == ("error", "DISPATCH_FAILED", False)


@pytest.mark.parametrize("status", ["success", "cancelled", "timeout", "error"])
@pytest.mark.parametrize("kept", [True, False])
async def test_a_late_result_changes_what_a_repeat_gets(world: Callable[[], Any], status: str, kept: bool) -> None:
    """Nobody knew whether it ran, its caller was told an error, and then its result came: one end for the caller, and
    whoever repeats is told what holds now, without the output."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    hands.undispatched.end(task, 1, "maximum messages exceeded")
    await hands.undispatched.drained()
    await hands.final_results.drained()
    assert (await end_again(here))["error_code"] == "DISPATCH_FAILED"
    await ended(here, task, output=SMALL, status=status)
    if not kept:
        await here.pod.nodes.call("DEL", here.pod.keys.final(task))
    again = await end_again(here)
    assert (again["status"], again["ok"], again["output_dropped"]) == (status, status == "success", True)
    assert "error_code" not in again
    assert [told["status"] for told in here.told] == ["error"]


@pytest.mark.parametrize("status", ["success", "timeout", "error"])
async def test_a_late_result_before_the_end_was_published(world: Callable[[], Any], status: str) -> None:
    """The caller who asked first gets the end that was stored; a repeat gets the one that holds now."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    hands.final_results.publish = lambda *_args, **_more: None  # type: ignore[method-assign]
    hands.undispatched.end(task, 1, "maximum messages exceeded")
    await hands.undispatched.drained()
    await ended(here, task, output=SMALL, status=status)
    again = await end_again(here)
    assert (again["status"], again.get("error_code")) == (status, None)


async def test_what_is_kept_has_a_life_time(world: Callable[[], Any]) -> None:
    """ROUTER_FINAL_KEEP, and no trace of a task whose caller asked for nothing."""
    here: World = await world()
    left = []
    for name, subject in (("asked", INBOX), ("not", None)):
        task = await pushed(here, name, result_subject=subject)
        await ended(here, task, output=SMALL)
        left.append(await here.pod.nodes.call("PTTL", here.pod.keys.final(task)))
    assert 590_000 < left[0] <= 600_000
    assert left[1] == -2


async def test_an_end_that_is_not_published_yet_is_whole(world: Callable[[], Any]) -> None:
    """Its pod died before the publish: whoever repeats need not wait for the sweeper, and the first caller is told."""
    here: World = await world()
    task = await pushed(here)
    done = result(assignment_id=to_text(assignment_id(task, 1)), output=LARGEST + "x")
    with pytest.raises(Died):
        await here.hands(Fate(3)).settle.settle_batch([Message(1, done)])
    assert here.told == []
    assert (await end_again(here))["output"] == LARGEST + "x"
    assert await here.is_due(task)
    hands = here.hands(Fate())
    await hands.sweeper.poll()
    await hands.final_results.drained()
    assert len(here.told) == 1


async def test_a_repeat_of_a_running_task_waits_for_its_end(world: Callable[[], Any]) -> None:
    """Its caller lost the first subject: both get the end."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    await repeat(here, hands)
    await asyncio.sleep(NOTHING_S)
    assert here.repeated == []
    await ended(here, task, output=SMALL)

    async def published() -> bool:
        return len(here.repeated) == 1

    await until(published, 5, "the end is published to the repeat")
    assert here.repeated == [(AGAIN, here.told[0])]


async def test_a_repeat_with_the_same_subject_is_not_told_twice(world: Callable[[], Any]) -> None:
    """The publication that comes anyway is for it."""
    here: World = await world()
    task = await pushed(here)
    hands = here.hands(Fate())
    await repeat(here, hands, subject=INBOX)
    await asyncio.wait_for(hands.repeats._running, 5)  # type: ignore[arg-type]
    await ended(here, task)
    assert len(here.told) == 1


async def test_who_wants_no_end_gets_none(world: Callable[[], Any]) -> None:
    """A repeat without a result_subject, and a decision that was not dispatched."""
    here: World = await world()
    await ended(here, await pushed(here))
    hands = here.hands(Fate())
    await repeat(here, hands, subject=None)
    assert hands.repeats._running is None


async def test_a_draining_pod_drops_who_waits(world: Callable[[], Any]) -> None:
    """The caller repeats at another pod; nothing of it keeps this one."""
    here: World = await world()
    await pushed(here)
    hands = here.hands(Fate())
    await repeat(here, hands)
    await asyncio.wait_for(hands.repeats.drained(), 5)
    assert hands.repeats._running is None
