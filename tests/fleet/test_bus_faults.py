"""NATS killed and restarted, streams that go missing, streams that must not be there."""

import asyncio

import pytest
from nats.js.api import StreamConfig

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, DECIDE, GET_DECISION, USAGE, Foreign, Worker, restart_nats, task
from tests.fleet.harness import PLAIN, Fleet, Pod, until

ACME = {"acme": {"default": PLAIN}}


async def flows(caller: Foreign, worker: Worker, count: int) -> None:
    """So many tasks go the whole way: decided, assigned, settled, metered."""
    usage = await caller.watch(USAGE)
    replies = await caller.all([task("acme", push_assignment=True) for _ in range(count)])
    assert all(r.ok for r in replies), [r.body for r in replies if not r.ok][:1]
    for reply in replies:
        await usage.one(assignment_id=reply.context["assignment_id"])
    assert {r.context["assignment_id"] for r in replies} <= {w["assignment_id"] for w in worker.taken}


async def test_nats_killed_and_restarted_is_found_again(own: Own) -> None:
    """kill -9, the same port and data: doors and consumers are open again, nobody is asked to restart a pod."""
    fleet, caller = await own(policies=ACME)
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        await flows(caller, worker, 20)
        await asyncio.to_thread(fleet.nats.kill)
        await until(lambda: _connected(fleet, 0), 5, "the pods notice")
        await asyncio.to_thread(fleet.nats.start)
        await until(lambda: caller.client.is_connected and other.client.is_connected, 10, "the callers are back")
        await until(lambda: _connected(fleet, 2), 10, "the pods are back")
        await until(lambda: _both_answer(caller), 10, "both pods answer")
        await flows(caller, worker, 20)
    assert [(await p.readyz())[0] for p in fleet.pods] == [200, 200]
    alerts = await caller.watch(ALERTS)
    await alerts.until(lambda a: a["component"] == "bus" and a["severity"] == "critical")
    await alerts.until(lambda a: a["component"] == "bus" and a["metadata"].get("resolved") is True)
    for pod in fleet.pods:
        assert pod.logged("pod.bug") == []


async def _connected(fleet: Fleet, count: int) -> bool:
    return await fleet.total("router_nats_connected") == count


async def _both_answer(caller: Foreign) -> bool:
    replies = await caller.all([task("acme") for _ in range(20)])
    return len({r.pod for r in replies}) == 2


async def test_a_deleted_stream_is_made_again_and_loses_no_task(own: Own) -> None:
    """What was decided and not published: the stream is made again, and the assignment gets into it."""
    _, caller = await own(pods=1, policies=ACME)
    assert (await caller.ask(task("acme"))).ok
    js = caller.client.jetstream()
    await js.delete_stream("ASSIGN")
    reply = await caller.ask(task("acme", push_assignment=True))
    assert reply.ok

    async def again() -> bool:
        info = await js.streams_info()
        return any(s.config.name == "ASSIGN" and s.state.messages for s in info)

    await until(again, 15, "the stream is there again and holds the assignment")
    seen = await (await caller.watch("caf.exec.assign.v1")).one()
    assert seen["assignment_id"] == reply.context["assignment_id"]


async def test_a_deleted_consumer_is_made_again(own: Own) -> None:
    """Somebody deletes the fleet's consumer: results are settled all the same."""
    fleet, caller = await own(pods=1, policies=ACME)
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        await flows(caller, worker, 3)
        await caller.client.jetstream().delete_consumer("RESULT", "router-fleet-results")
        await flows(caller, worker, 3)


@pytest.mark.parametrize("subject", [f"{DECIDE}.>", GET_DECISION])
async def test_a_stream_over_the_requests_takes_readiness(own: Own, subject: str) -> None:
    """Not ready, with the stream's name, and an alert; ready again when it is gone."""
    fleet, caller = await own(pods=0, policies=ACME)
    js = caller.client.jetstream()
    await js.add_stream(StreamConfig(name="GREEDY", subjects=[subject]))
    pod = await fleet.pod().start(wait=False)
    await until(lambda: _not_ready_for(pod, "GREEDY"), 15, "not ready")
    assert (await pod.http("/livez"))[0] == 200
    alerts = await caller.watch(ALERTS)
    (raised,) = await alerts.until(lambda a: "covers" in a["message"])
    assert raised["severity"] == "critical"
    await js.delete_stream("GREEDY")
    await pod.until_ready()
    await alerts.until(lambda a: a["metadata"].get("resolved") is True and a["alert_id"] == raised["alert_id"])
    assert (await caller.ask(task("acme"))).ok


async def _not_ready_for(pod: Pod, name: str) -> bool:
    status, body = await pod.readyz()
    return status == 503 and name in body["reasons"].get("streams", "")


async def test_a_stream_that_comes_later_takes_readiness_too(own: Own) -> None:
    """Looked for again at each connection: a running pod turns unready, and ready when the stream is gone."""
    fleet, caller = await own(pods=1, policies=ACME)
    (pod,) = fleet.pods
    js = caller.client.jetstream()
    await js.add_stream(StreamConfig(name="GREEDY", subjects=[DECIDE]))
    await restart_nats(fleet, caller)
    await until(lambda: _not_ready_for(pod, "GREEDY"), 10, "not ready")
    await js.delete_stream("GREEDY")
    await restart_nats(fleet, caller)
    await until(lambda: _is_ready(pod), 10, "ready again")
    assert (await caller.ask(task("acme"))).ok


async def _is_ready(pod: Pod) -> bool:
    return (await pod.readyz())[0] == 200
