"""Permissions that an operator takes away while pods run, by a reload: what is deaf says so, and hears again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.foreign import ALERTS, GET_DECISION, RESULT, USAGE, Foreign, success, task
from tests.fleet.harness import PLAIN, Fleet, Pod, until
from tests.servers import NatsProcess

ACME = {"acme": {"default": PLAIN}}
LOGIN = {"ROUTER_NATS_USER": "router", "ROUTER_NATS_PASSWORD": "pw"}
BACK_S = 15.0
"""The promise: so long after the permission is back, all is well."""


def users(publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> str:
    """A user `router` who may do everything but this, and one without a name who may do everything."""
    denied = f"publish: {{ deny: {list(publish)} }}, subscribe: {{ deny: {list(subscribe)} }}".replace("'", '"')
    return (
        f"accounts {{ A {{ jetstream: enabled, users: [{{user: router, password: pw, permissions: {{ {denied} }} }}, "
        "{user: all, password: all}] } }\nno_auth_user: all"
    )


@pytest.fixture(scope="module")
async def deaf(servers: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Fleet, Foreign]]:
    """One pod whose user this module's tests take permissions from, and give them back."""
    folder: Path = tmp_path_factory.mktemp("deaf")
    nats = NatsProcess(folder / "nats", extra=users())
    async with Fleet(folder / "fleet", pods=1, policies=ACME, nats=nats, env=LOGIN) as fleet, Foreign(nats.url) as all_:
        yield fleet, all_


async def take(fleet: Fleet, publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> None:
    """Reload the server without these permissions."""
    await asyncio.to_thread(fleet.nats.reload, users(publish, subscribe))


async def give_back(fleet: Fleet) -> None:
    """Reload with all permissions; everything is on again within the promised time, in the same process."""
    (pod,) = fleet.pods
    await asyncio.to_thread(fleet.nats.reload, users())
    await until(lambda: whole(pod), BACK_S, "everything is on again")


async def whole(pod: Pod) -> bool:
    """Whether it is ready, and nothing is off."""
    status, body = await pod.readyz()
    return status == 200 and body["degraded"] == []


async def off(pod: Pod, parts: set[str], *words: str) -> None:
    """Wait until exactly these parts are off on a ready pod, with all the words in each reason."""
    seen: Any = None

    async def look() -> bool:
        nonlocal seen
        seen = status, body = await pod.readyz()
        reasons = body["degraded_reasons"]
        return status == 200 and set(reasons) == parts and all(w in r for w in words for r in reasons.values())

    try:
        await until(look, 30, f"{parts} are off")
    except AssertionError as late:
        raise AssertionError(f"{late}: {seen}") from late


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        ("beamline.router.v1.decide", "subscribe to beamline.router.v1.decide;"),
        ("beamline.router.v1.decide.>", "subscribe to beamline.router.v1.decide.>;"),
        ("beamline.router.v1.>", "subscribe to beamline.router.v1.decide;"),
    ],
)
async def test_a_pod_that_hears_no_requests_is_not_ready(deaf: tuple[Fleet, Foreign], denied: str, named: str) -> None:
    """One reason that names the subject, an alert, a metric; a request is answered again without a restart."""
    fleet, caller = deaf
    (pod,) = fleet.pods
    alerts = await caller.watch(ALERTS)
    await take(fleet, subscribe=[denied])

    async def not_ready() -> bool:
        status, body = await pod.readyz()
        return status == 503 and list(body["reasons"]) == ["serving"] and named in body["reasons"]["serving"]

    await until(not_ready, 30, "not ready with the reason")
    subject = named.removeprefix("subscribe to ").rstrip(";")
    (raised, *_) = await alerts.until(lambda a: a["metadata"].get("scope") == subject)
    assert raised["severity"] == "critical"
    assert f"subscribe to {subject}: permit it" in raised["message"]
    metrics = await pod.metrics()
    assert (metrics["router_ready"], metrics["router_nats_permissions_lost"] >= 1) == (0, True)
    await give_back(fleet)
    assert (await caller.ask(task("acme"))).ok
    assert (await caller.ask(task("acme"), subject="beamline.router.v1.decide.acme")).ok
    await alerts.until(lambda a: a["alert_id"] == raised["alert_id"] and a["metadata"].get("resolved") is True)
    assert (await pod.metrics())["router_nats_permissions_lost"] == 0
    assert len(pod.logged("pod.starting")) == 1


@pytest.mark.parametrize(
    ("denied", "part"),
    [
        ("beamline.router.v1.get_decision", "queries"),
        ("beamline.router.v1.get_decision.>", "bound_queries"),
        ("beamline.router.v1.status.>", "status"),
        ("beamline.router.v1.admin.*", "admin"),
        ("beamline.router.internal.v1.policy_changed", "announcements"),
        ("caf.status.heartbeat.v1", "worker_signals"),
        ("caf.deadletter.v1", "worker_signals"),
    ],
)
async def test_a_part_is_off_while_its_subscription_is_refused(
    deaf: tuple[Fleet, Foreign], denied: str, part: str
) -> None:
    """The pod decides and dispatches meanwhile."""
    fleet, caller = deaf
    await take(fleet, subscribe=[denied])
    await off(fleet.pods[0], {part}, "NATS does not permit this user to subscribe to ")
    assert (await caller.ask(task("acme"))).ok
    assert (await caller.ask(task("acme", push_assignment=True))).ok
    await give_back(fleet)
    query = {"version": "1", "tenant_id": "acme", "request_id": "none"}
    for subject in (GET_DECISION, f"{GET_DECISION}.acme"):
        assert (await caller.ask(query, subject=subject)).error["code"] == "decision_not_found"


async def test_results_that_may_not_be_pulled(deaf: tuple[Fleet, Foreign]) -> None:
    """Decides go on; pushes are refused: their tasks would run and time out. What comes meanwhile is settled."""
    fleet, caller = deaf
    (pod,) = fleet.pods
    usage, alerts = await caller.watch(USAGE), await caller.watch(ALERTS)
    work = await caller.core("caf.exec.assign.v1")
    pushed = await caller.ask(task("acme", push_assignment=True, options={"deadline_ms": 60_000}))
    assignment = await work.one(assignment_id=pushed.context["assignment_id"])
    subject = "$JS.API.CONSUMER.MSG.NEXT.RESULT.router-fleet-results"
    await take(fleet, publish=[subject])
    await off(pod, {"results", "dispatch"}, f"NATS does not permit this user to publish to {subject}")
    await caller.tell(RESULT, success(assignment))
    assert (await caller.ask(task("acme"))).ok
    refused = (await caller.ask(task("acme", push_assignment=True))).error
    assert (refused["code"], refused["details"]["retry_after_ms"]) == ("unavailable", 1000)
    assert f"results do not arrive: NATS does not permit this user to publish to {subject}" in refused["message"]
    await alerts.until(lambda a: a["metadata"].get("scope") == subject and a["severity"] == "critical")
    assert usage.where(assignment_id=assignment["assignment_id"]) == []
    await give_back(fleet)
    await usage.one(assignment_id=assignment["assignment_id"])
    assert (await caller.ask(task("acme", push_assignment=True))).ok


async def test_acks_of_workers_that_may_not_be_pulled(deaf: tuple[Fleet, Foreign]) -> None:
    """Only that is off: tasks end by their results."""
    fleet, caller = deaf
    await take(fleet, publish=["$JS.API.CONSUMER.MSG.NEXT.ACK.*"])
    await off(fleet.pods[0], {"acks"}, "publish to $JS.API.CONSUMER.MSG.NEXT.ACK.router-fleet-acks")
    assert (await caller.ask(task("acme", push_assignment=True))).ok
    await give_back(fleet)


async def test_results_that_may_not_be_acknowledged(deaf: tuple[Fleet, Foreign]) -> None:
    """They are settled, and the pod says that they will come again."""
    fleet, caller = deaf
    usage = await caller.watch(USAGE)
    work = await caller.core("caf.exec.assign.v1")
    await take(fleet, publish=["$JS.ACK.RESULT.>"])
    pushed = await caller.ask(task("acme", push_assignment=True))
    assignment = await work.one(assignment_id=pushed.context["assignment_id"])
    await caller.tell(RESULT, success(assignment))
    await usage.one(assignment_id=assignment["assignment_id"])
    await off(fleet.pods[0], {"results"}, "publish to $JS.ACK.RESULT.router-fleet-results.>")
    await give_back(fleet)
    assert len(usage.where(assignment_id=assignment["assignment_id"])) == 1


async def test_usage_that_may_not_be_published(deaf: tuple[Fleet, Foreign]) -> None:
    """It waits in Redis, and is published when the permission is back."""
    fleet, caller = deaf
    usage = await caller.watch(USAGE)
    work = await caller.core("caf.exec.assign.v1")
    await take(fleet, publish=[USAGE])
    pushed = await caller.ask(task("acme", push_assignment=True))
    assignment = await work.one(assignment_id=pushed.context["assignment_id"])
    await caller.tell(RESULT, success(assignment))
    await off(
        fleet.pods[0],
        {"usage"},
        f"stream USAGE does not store messages: NATS does not permit this user to publish to {USAGE}",
    )
    assert (await caller.ask(task("acme", push_assignment=True))).ok
    await give_back(fleet)
    await usage.one(assignment_id=assignment["assignment_id"])


async def test_replies_that_may_not_be_published(deaf: tuple[Fleet, Foreign]) -> None:
    """Callers time out, and the pod says why; the log has one line, not one per request."""
    fleet, caller = deaf
    (pod,) = fleet.pods
    alerts = await caller.watch(ALERTS)
    before = len(pod.logged("bus.error"))
    # JetStream answers the pod with the server's own rights: only what the pod publishes is refused.
    await take(fleet, publish=["_INBOX.>"])
    for _ in range(20):
        await caller.send(b"{}")
    await off(pod, {"replies"}, "publish to _INBOX.>")
    await alerts.until(lambda a: a["metadata"].get("scope") == "_INBOX.>" and a["severity"] == "critical")
    assert len(pod.logged("bus.error")) - before <= 1
    await asyncio.to_thread(fleet.nats.reload, users())
    assert (await caller.ask(task("acme"))).ok
    await until(lambda: whole(pod), BACK_S, "nothing was refused for ten seconds")


async def test_inboxes_that_may_not_be_subscribed(deaf: tuple[Fleet, Foreign]) -> None:
    """No acks of streams, no messages of consumers: decides go on, and all else is off by name until it is back."""
    fleet, caller = deaf
    (pod,) = fleet.pods
    usage = await caller.watch(USAGE)
    inboxes = f"{fleet.pod_env.get('ROUTER_NATS_INBOX_PREFIX', '_INBOX')}.>"
    await take(fleet, subscribe=[inboxes])

    async def named() -> bool:
        status, body = await pod.readyz()
        off_ = {p for p, r in body["degraded_reasons"].items() if f"subscribe to {inboxes}: permit it" in r}
        return status == 200 and {"results", "acks", "dispatch"} <= off_

    await until(named, 30, "the parts are off")
    assert (await caller.ask(task("acme"))).ok
    assert (await caller.ask(task("acme", push_assignment=True))).error["code"] == "unavailable"
    await give_back(fleet)
    work = await caller.core("caf.exec.assign.v1")
    pushed = await caller.ask(task("acme", push_assignment=True))
    assignment = await work.one(assignment_id=pushed.context["assignment_id"])
    await caller.tell(RESULT, success(assignment))
    await usage.one(assignment_id=assignment["assignment_id"])


@pytest.mark.long
async def test_streams_that_may_not_be_read(deaf: tuple[Fleet, Foreign]) -> None:
    """Nobody would notice that one is missing: the pod says so."""
    fleet, caller = deaf
    (pod,) = fleet.pods
    await take(fleet, publish=["$JS.API.STREAM.>"])
    js = caller.client.jetstream()
    await js.purge_stream("ALERT")

    async def looked() -> bool:
        _, body = await pod.readyz()
        return "publish to $JS.API.STREAM." in body["degraded_reasons"].get("stream_checks", "")

    await until(looked, 60, "it is off by name")
    assert (await caller.ask(task("acme", push_assignment=True))).ok
    await give_back(fleet)
