"""A stream that stores nothing: nobody is blamed for an attempt that was never published; pushes are refused."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.js import JetStreamContext

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, ASSIGN, RESULT, USAGE, Body, Foreign, success, task
from tests.fleet.harness import Document, Fleet, Pod, until

POLICY: Document = {
    "version": "1.0",
    "providers": [{"name": "alpha", "weight": 100, "max_concurrency": 10, "expected_cost": 0.1}],
    "circuit_breaker": {"enabled": True, "failure_threshold": 3},
    "limits": [{"id": "spend", "scope": "tenant", "resource": "cost", "limit": 1, "window": "1h"}],
}
ENV = {"ROUTER_PUBLISH_TIMEOUT": "3s"}


async def edit(js: JetStreamContext, name: str, **changes: Any) -> None:
    """What an operator changes of a stream."""
    config = (await js.stream_info(name)).config
    await js.update_stream(config.evolve(**changes))


async def full(js: JetStreamContext) -> None:
    """ASSIGN holds one message and takes no other."""
    await edit(js, "ASSIGN", max_msgs=1, discard="new")
    await js.publish(ASSIGN, b"in the way")


async def emptied(js: JetStreamContext) -> None:
    """It has room again."""
    await edit(js, "ASSIGN", max_msgs=-1)


async def sealed(js: JetStreamContext) -> None:
    """ASSIGN takes no message ever again."""
    await edit(js, "ASSIGN", sealed=True, max_age=0, deny_delete=True, deny_purge=True, allow_rollup_hdrs=False)


async def deleted(js: JetStreamContext) -> None:
    """An operator replaces ASSIGN."""
    await js.delete_stream("ASSIGN")


async def small(js: JetStreamContext) -> None:
    """ASSIGN takes no message of more than 10 bytes."""
    await edit(js, "ASSIGN", max_msg_size=10)


async def push(caller: Foreign, inbox: str, **more: Any) -> Any:
    """One pushed task whose caller waits for its end."""
    options = {"result_subject": inbox, "deadline_ms": 20_000, "retry": {"max_attempts": 3}}
    return await caller.ask(task("acme", push_assignment=True, options=options, **more))


def is_off(pod: Pod, word: str) -> Callable[[], Any]:
    """Whether dispatch is off with this word in its reason, on a ready pod."""

    async def look() -> bool:
        status, body = await pod.readyz()
        return status == 200 and word in body["degraded_reasons"].get("dispatch", "")

    return look


async def is_on(pod: Pod) -> bool:
    """Whether nothing is off."""
    _, body = await pod.readyz()
    return not body["degraded"]


async def breakers(fleet: Fleet) -> list[str]:
    """What the audit says of breakers."""
    return [a for a in await fleet.actions("acme") if a.startswith("breaker")]


@pytest.mark.parametrize(
    ("harm", "words"), [(full, "maximum messages exceeded"), (sealed, "sealed")], ids=["full", "sealed"]
)
async def test_what_a_stream_refuses_is_nobodys_failure(own: Own, harm: Any, words: str) -> None:
    """Three pushes, a breaker of three failures: it stays closed. Callers get DISPATCH_FAILED with the server's words,
    and reservations and leases are free again."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": POLICY}}, env=ENV)
    js = caller.client.jetstream()
    await harm(js)
    inbox = caller.client.new_inbox()
    finals = await caller.core(inbox)
    replies = await asyncio.gather(*(push(caller, inbox) for _ in range(3)))
    accepted = [r for r in replies if r.ok]
    assert accepted
    ends = await finals.many(len(accepted), 15)
    for end in ends:
        assert (end["ok"], end["status"], end["error_code"]) == (False, "error", "DISPATCH_FAILED")
        assert words in end["error_message"]
    assert await breakers(fleet) == []
    assert await fleet.total("router_assignments_undispatched_total") == len(accepted)
    # 1.00 USD in all, 0.10 a task, 10 at once: nothing of what was refused is left reserved.
    all_of_it = [await caller.ask(task("acme")) for _ in range(10)]
    assert all(r.ok for r in all_of_it), [r.body for r in all_of_it if not r.ok][:1]


async def test_pushes_are_refused_while_a_stream_is_full(own: Own) -> None:
    """`unavailable` with the reason from a second on, an alert after ten; decides go on. A probe ends it."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": POLICY}}, env=ENV)
    (pod,) = fleet.pods
    js = caller.client.jetstream()
    alerts = await caller.watch(ALERTS)
    await full(js)
    inbox = caller.client.new_inbox()
    assert (await push(caller, inbox)).ok
    await until(is_off(pod, "maximum messages exceeded"), 10, "dispatch is off")
    seen: list[Body] = []
    probes = 0

    async def raised() -> bool:
        nonlocal probes
        reply = await push(caller, inbox)
        if reply.ok:
            probes += 1
        else:
            seen.append(reply.error)
        return any("ASSIGN" in a["message"] and a["severity"] == "critical" for a in alerts.seen)

    loop = asyncio.get_running_loop()
    began = loop.time()
    await until(raised, 40, "the alert")
    assert probes <= loop.time() - began + 2
    assert {e["code"] for e in seen} == {"unavailable"}
    assert all("stream ASSIGN does not store messages: maximum messages exceeded" in e["message"] for e in seen)
    assert all(e["details"]["retry_after_ms"] > 0 for e in seen)
    assert (await caller.ask(task("acme"))).ok
    await emptied(js)

    async def open_again() -> bool:
        return (await push(caller, inbox)).ok and await is_on(pod)

    await until(open_again, 20, "pushes are admitted again")
    await alerts.until(
        lambda a: a["metadata"].get("resolved") is True and a["metadata"].get("stream") == "ASSIGN", 1, 20
    )
    assert await breakers(fleet) == []


async def test_an_event_stream_that_is_full_holds_no_task_up(own: Own) -> None:
    """ASSIGNED refuses events: tasks are dispatched, done and metered all the same."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": POLICY}}, env=ENV)
    js = caller.client.jetstream()
    await edit(js, "ASSIGNED", max_msgs=1, discard="new")
    await js.publish("caf.exec.assigned.v1", b"in the way")
    usage = await caller.watch(USAGE)
    work = await caller.watch(ASSIGN)
    reply = await push(caller, caller.client.new_inbox())
    assignment = await work.one(assignment_id=reply.context["assignment_id"])

    async def marked() -> bool:
        return "assignment.published" in await fleet.actions("acme")

    await until(marked, 10, "it is marked as published")
    await caller.tell(RESULT, success(assignment))
    await usage.one(assignment_id=reply.context["assignment_id"])


async def test_what_is_not_answered_is_settled_once_by_its_result(own: Own) -> None:
    """ASSIGN stores and confirms nothing (`no_ack`): no verdict, the caller hears of a timeout, and the result of the
    worker that had it settles and meters it, once."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": POLICY}}, env=ENV)
    js = caller.client.jetstream()
    await edit(js, "ASSIGN", no_ack=True)
    usage = await caller.watch(USAGE)
    work = await caller.watch(ASSIGN)
    inbox = caller.client.new_inbox()
    finals = await caller.core(inbox)
    options = {"result_subject": inbox, "deadline_ms": 5_000, "retry": {"max_attempts": 3}}
    reply = await caller.ask(task("acme", push_assignment=True, options=options))
    assignment = await work.one(assignment_id=reply.context["assignment_id"])
    end = await finals.one(30)
    assert (end["status"], end["error_code"]) == ("timeout", "DEADLINE_EXCEEDED")
    assert "no stream confirmed" in end["error_message"]
    for _ in range(3):
        await caller.tell(RESULT, success(assignment, cost=0.05))
    event = await usage.one(assignment_id=reply.context["assignment_id"])
    assert event["cost"] == 0.05
    await until(lambda: _settled(fleet), 10, "all three results are handled")
    assert len(usage.seen) == 1
    assert await breakers(fleet) == []
    assert [f["status"] for f in finals.seen] == ["timeout"]


async def _settled(fleet: Fleet) -> bool:
    actions = await fleet.actions("acme")
    return actions.count("result.settled") == 1 and actions.count("result.duplicate") == 2


async def test_a_message_that_is_too_large_closes_nothing(own: Own) -> None:
    """The stream refuses one message for its size: that task fails, and others are still admitted."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": POLICY}}, env=ENV)
    js = caller.client.jetstream()
    await small(js)
    inbox = caller.client.new_inbox()
    finals = await caller.core(inbox)
    assert (await push(caller, inbox)).ok
    end = await finals.one(10)
    assert end["error_code"] == "DISPATCH_FAILED"
    assert "message size exceeds maximum" in end["error_message"]
    assert await is_on(fleet.pods[0])
    assert (await push(caller, inbox)).ok
