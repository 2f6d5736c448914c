"""Results on a real store: pods that die at any step of settling one, and many at once.

A pod's death is an exception that nothing catches, before or after the act at which it dies took place. The stream
hands the result to the next pod.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest

from router.domain.decide.outcome import Admitted, LimitHit
from router.domain.ids import assignment_id, from_text, name_in, task_id, task_of, to_text
from router.domain.policy.model import provider
from router.domain.tasks.task import TaskRecord, TaskState
from tests.store.harness import Ask, policy, request
from tests.usecases.fakes.bus import NOW_MS, Message
from tests.usecases.fakes.settling import (
    INBOX,
    MAX_STEPS,
    RESERVED,
    TENANT,
    TOKENS,
    USED,
    Died,
    Fate,
    World,
    result,
)


async def died_and_done(world: World, data: bytes, fate: Fate) -> bool:
    """One pod takes the result and dies; the next one is handed it again, and looks into the outbox. False: nobody
    died."""
    settle, _ = world.settle(fate)
    died = False
    try:
        first = Message(1, data)
        await settle.settle_batch([first])
        # The ack is the last act: a pod that dies before it has said nothing.
        fate.at_work(lambda: None)
    except Died:
        died = True
        hands = world.hands(Fate())
        again = Message(1, data, delivered=2)
        await hands.settle.settle_batch([again])
        assert again.said == ["ack"]
        for _ in range(2):
            await hands.outbox.poll()
        await hands.outbox.drained()
        named = orjson.loads(data).get("assignment_id")
        if named is not None and await world.is_due(task_of(from_text(named) or b"")):
            await hands.sweeper.poll()
        await hands.final_results.drained()
    return died


@pytest.mark.parametrize("pushed", [True, False])
@pytest.mark.parametrize("after", [True, False])
async def test_a_pod_may_die_at_every_step(world: Callable[[], Any], pushed: bool, after: bool) -> None:
    """Settled, audited, corrected and metered once; the lease is free; a caller who waits has heard of it."""
    for at in range(MAX_STEPS):
        here: World = await world()
        options: Mapping[str, Any] = {"result_subject": INBOX} if pushed else {"meter": True}
        made = await here.ask("r", RESERVED, **options)
        assert isinstance(made, Admitted)
        task = task_id(made.decision_id)
        named = {"assignment_id": to_text(assignment_id(task, 1))} if pushed else {"request_id": "r"}
        data = result(tenant_id=TENANT, **named)
        if not await died_and_done(here, data, Fate(at, after=after)):
            assert at >= 4
            return
        assert (await here.actions()).count("result.settled") == 1
        assert here.usage == [to_text(task if pushed else made.decision_id)]
        assert await here.tasks.usage_left() == 0
        if pushed:
            (record,) = await here.tasks.records([task])
            assert isinstance(record, TaskRecord)
            assert record.state is TaskState.SUCCEEDED
            assert here.told
            assert all(told == here.told[0] and told["ok"] is True for told in here.told)
            assert not await here.is_due(task)
        rest = await here.ask("rest", TOKENS.limit - USED)
        assert isinstance(rest, Admitted), at
        assert isinstance(await here.ask("more", 1), LimitHit)
    raise AssertionError("a result of endless acts")


async def test_results_of_undispatched_decisions_are_read_at_once(world: Callable[[], Any]) -> None:
    """However many come in a batch: one round trip for what they name, one for what they settle."""
    here: World = await world()
    free = policy(provider("only", weight=100))
    wanted = [request(TENANT, f"r{n}") for n in range(50)]
    await here.pod.decide(*(Ask(w, free) for w in wanted))
    settle, _ = here.settle(fate := Fate())
    batch = [Message(n, result(tenant_id=TENANT, request_id=w.request_id)) for n, w in enumerate(wanted)]
    await settle.settle_batch(batch)
    assert (await here.actions()).count("result.settled") == 50
    assert fate.acts == 2


async def test_an_answer_that_cannot_be_read_keeps_its_result(world: Callable[[], Any]) -> None:
    """Its result comes again, then is kept as a dead letter; its neighbours are settled."""
    here: World = await world()
    free = policy(provider("only", weight=100))
    bad, good = await here.pod.decide(*(Ask(request(TENANT, n), free) for n in ("bad", "good")))
    assert isinstance(bad, Admitted)
    assert isinstance(good, Admitted)
    key = here.pod.keys.tenant(TENANT).idem(name_in(bad.decision_id))
    await here.pod.nodes.call("DEL", key)
    await here.pod.nodes.call("LPUSH", key, "a list")
    for n in range(8):
        settle, _ = here.settle(Fate())  # another pod each time: they count together
        batch = [Message(1, result(tenant_id=TENANT, request_id="bad"), delivered=n + 1)]
        await settle.settle_batch([*batch, *([] if n else [Message(2, result(tenant_id=TENANT, request_id="good"))])])
        assert batch[0].said == (["ack"] if n == 7 else [f"nak {min(2**n, 4)}"])
    assert (await here.actions()).count("result.settled") == 1
    assert [x["error_code"] for x in here.letters] == ["internal"]


async def test_a_damaged_outbox_holds_up_no_other_partition(
    world: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What the others hold is counted, read, published and cleared; the log says so, not at every look."""
    here: World = await world()
    keys = here.pod.keys
    usage_id = bytes([0, 5]) + bytes(14)
    await here.pod.nodes.call("SET", keys.outbox(3), "no hash")
    await here.pod.nodes.call("HSET", keys.outbox(5), usage_id, b'{"timestamp":%d}' % NOW_MS)
    assert await here.tasks.usage_left() == 1
    assert await here.tasks.usage_is_waiting([usage_id, bytes([0, 3]) + bytes(14)]) == [True, False]
    _, outbox = here.settle(Fate())
    for _ in range(2):
        await outbox.poll()
    await outbox.drained()
    assert here.usage == [to_text(usage_id)]
    assert await here.tasks.usage_left() == 0
    assert [r.levelname for r in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("pushed", [True, False])
async def test_defects_of_a_result_are_settled_audited_counted_and_told(world: Callable[[], Any], pushed: bool) -> None:
    """Half a character, a cost that is no number, tokens in parts: the task ends, its tokens are settled."""
    here: World = await world()
    options: Mapping[str, Any] = {"result_subject": INBOX} if pushed else {"meter": True}
    made = await here.ask("r", RESERVED, **options)
    task = task_id(made.decision_id)
    named = {"assignment_id": to_text(assignment_id(task, 1))} if pushed else {"request_id": "r"}
    odd = {"status": "SUCCESS", "cost": float("nan"), "latency_ms": "12", "output": "cut \ud83d", "version": 1}
    parts = {"tokens": {"input": 20, "output": USED - 20}}
    body = orjson.loads(result(tenant_id=TENANT, **named)) | odd | parts
    hands = here.hands(Fate())
    await hands.settle.settle_batch([message := Message(1, json.dumps(body).encode())])
    await hands.outbox.drained()
    await hands.final_results.drained()
    assert message.said == ["ack"]
    assert here.letters == []
    (entry,) = [e for e in await here.audit() if e.action == "result.settled"]
    assert "has half a character" in str(entry.details["note"])
    counted = here.telemetry.registry.get_sample_value
    for defect, times in (("half_character", 1), ("not_finite", 1), ("other_form", 3)):
        labels = {"message": "result", "defect": defect}
        assert counted("router_input_defects_total", labels) == times
    (usage,) = here.usage_events
    assert (usage["tokens"], usage["tokens_input"], usage["tokens_output"]) == (USED, 20, USED - 20)
    assert [f["output"] for f in here.told] == (["cut �"] if pushed else [])
    assert [len(list(f["warnings"])) for f in here.told] == ([5] if pushed else [])  # type: ignore[arg-type]
    assert isinstance(await here.ask("rest", TOKENS.limit - USED), Admitted)
    assert isinstance(await here.ask("more", 1), LimitHit)


async def test_tokens_that_are_no_number_leave_the_reservation(world: Callable[[], Any]) -> None:
    """They were reserved by estimate, and nobody knows better."""
    here: World = await world()
    made = await here.ask("r", RESERVED)
    settle, _ = here.settle(Fate())
    odd = orjson.loads(result(tenant_id=TENANT, request_id="r")) | {"tokens": "many"}
    await settle.settle_batch([Message(1, orjson.dumps(odd))])
    assert isinstance(made, Admitted)
    assert (await here.actions()).count("result.settled") == 1
    assert isinstance(await here.ask("rest", TOKENS.limit - RESERVED), Admitted)
    assert isinstance(await here.ask("more", 1), LimitHit)


async def test_an_odd_ack_counts(world: Callable[[], Any]) -> None:
    """Its status in capitals, its message half a character: accepted, audited and counted."""
    here: World = await world()
    made = await here.ask("r", RESERVED, result_subject=INBOX)
    task = task_id(made.decision_id)
    hands = here.hands(Fate())
    ack = {
        "assignment_id": to_text(assignment_id(task, 1)),
        "status": "ACCEPTED",
        "message": "ok \ud83d",
        "request_id": 7,
    }
    await hands.acks.receive([message := Message(1, json.dumps(ack).encode())])
    assert message.said == ["ack"]
    (entry,) = [e for e in await here.audit() if e.action == "assignment.accepted"]
    assert str(entry.details["note"]).startswith("ok �; the body has half a character")
    labels = {"message": "ack", "defect": "field_dropped"}
    assert here.telemetry.registry.get_sample_value("router_input_defects_total", labels) == 1
