"""The reply subject is the caller's and the right to publish is the router's: which reply subjects are answered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.fleet.conftest import Own
from tests.fleet.foreign import ALERTS, BACKPRESSURE, DECIDE, GET_DECISION, Foreign, task
from tests.fleet.harness import PLAIN, Fleet, until
from tests.nats_client import connect
from tests.servers import LEAST_RIGHTS, NatsProcess

ADMIN = "beamline.router.v1.admin.get_extension_health"
DOORS = (DECIDE, f"{DECIDE}.acme", GET_DECISION, f"{GET_DECISION}.acme", BACKPRESSURE, ADMIN)
ACME = {"acme": {"default": PLAIN}}
FORBIDDEN = {
    "usage": "beamline.usage.v1.metered",
    "assignments": "caf.exec.assign.v1",
    "assignments of another subject": "caf.exec.gpu.v1",
    "assigned events": "caf.exec.assigned.v1",
    "acks": "caf.exec.assign.v1.ack",
    "results": "caf.exec.result.v1",
    "results of a tenant": "caf.exec.result.v1.tenant.acme",
    "cancellations": "caf.exec.cancel.v1",
    "dead letters": "caf.exec.result.v1.dlq",
    "alerts": "beamline.alert.v1.critical",
    "heartbeats": "caf.status.heartbeat.v1",
    "dead letters of workers": "caf.deadletter.v1",
    "a decide request": DECIDE,
    "a decide request of a tenant": f"{DECIDE}.globex",
    "an admin act": "beamline.router.v1.admin.purge_tenant",
    "an announcement": "beamline.router.internal.v1.policy_changed",
    "an extension": "beamline.ext.pre.mask.v1",
    "JetStream": "$JS.API.STREAM.DELETE.USAGE",
    "an object store": "$O.bucket.C.chunk",
    "the system": "$SYS.REQ.SERVER.PING",
    "a key-value bucket": "$KV.config.key",
    "a stream of others": "orders.new",
    "a stream of others with a wildcard in front": "emea.eu.invoices",
}
USERS = f"""
authorization {{ users: [
  {{ user: router, password: of-the-router }}
  {{ user: plain, password: plain, permissions: {{ publish: ["{DECIDE}"], subscribe: ["nothing"] }} }}
  {{ user: bound, password: bound, permissions: {{
     publish: {{ allow: [">"], deny: ["$JS.API.STREAM.LIST"] }},
     subscribe: {{ allow: [">"], deny: ["{GET_DECISION}.>"] }} }} }}
] }}
"""
ROUTER = {"ROUTER_NATS_USER": "router", "ROUTER_NATS_PASSWORD": "of-the-router"}


async def asked(client: Client, reply: str, subject: str = DECIDE, **more: Any) -> None:
    """Publish one decide request of acme with this reply subject."""
    await client.publish(subject, orjson.dumps(task("acme", **more)), reply=reply)
    await client.flush()


async def answer(client: Client, reply: str, subject: str = DECIDE, within_s: float = 5.0) -> dict[str, Any]:
    """The answer to a request that names its own reply subject."""
    subscription = await client.subscribe(reply)
    await asked(client, reply, subject)
    message = await subscription.next_msg(within_s)
    await subscription.unsubscribe()
    return dict(orjson.loads(message.data))


async def refusals(fleet: Fleet) -> float:
    """Requests that the pods dropped for their reply subject."""
    return await fleet.total("router_reply_subjects_refused_total")


async def messages(client: Client) -> int:
    """The messages in all streams of the account, alerts apart."""
    return sum([s.state.messages for s in await client.jetstream().streams_info() if s.config.name != "ALERT"])


@pytest.fixture(scope="module")
async def guarded(servers: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """One pod behind NATS with users, and streams of others in the account."""
    folder = tmp_path_factory.mktemp("guarded")
    server = NatsProcess(folder / "nats", extra=USERS)
    await asyncio.to_thread(server.start)
    client = await connect(server.url, user="router", password="of-the-router")  # noqa: S106
    js = client.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.*"])
    await js.add_stream(name="INVOICES", subjects=["*.eu.invoices"], no_ack=True)
    await client.close()
    async with Fleet(folder / "own", pods=1, env=ROUTER, policies=ACME, nats=server) as fleet:
        yield fleet


@pytest.fixture
async def owner(guarded: Fleet) -> AsyncIterator[Client]:
    """A client that may do everything."""
    client = await connect(guarded.nats.url, user="router", password="of-the-router")  # noqa: S106
    yield client
    await client.close()


@pytest.fixture
async def plain(guarded: Fleet) -> AsyncIterator[Client]:
    """A client that may publish to the plain decide subject only."""
    client = await connect(guarded.nats.url, user="plain", password="plain")  # noqa: S106
    yield client
    await client.close()


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_a_caller_cannot_make_the_router_publish(guarded: Fleet, plain: Client, owner: Client, what: str) -> None:
    """Nothing is published, decided, dispatched or recorded, and the refusal is counted."""
    reply = FORBIDDEN[what]
    before, refused, decided = await messages(owner), await refusals(guarded), await guarded.actions("acme")
    answers: list[Msg] = []

    async def heard(message: Msg) -> None:
        if "router-pod" in (message.headers or {}):
            answers.append(message)

    subscription = await owner.subscribe(reply, cb=heard)
    await owner.flush()
    await asked(plain, reply, push_assignment=True)

    async def counted() -> bool:
        return await refusals(guarded) == refused + 1

    await until(counted, 10, "the refusal is counted")
    # An answer to a later request comes after anything that the router would have published for the earlier one.
    assert (await answer(owner, "_INBOX.later.1"))["ok"] is True
    assert (await messages(owner), answers) == (before, [])
    await subscription.unsubscribe()
    assert len(await guarded.actions("acme")) == len(decided) + 1


async def test_refusals_are_one_log_line_a_minute_and_one_alert(guarded: Fleet, plain: Client, owner: Client) -> None:
    """However many they are; the line names subject, reply subject and reason."""
    before = await refusals(guarded)
    for number in range(500):
        await plain.publish(DECIDE, b"{}", reply=f"caf.exec.result.v1.x{number}")
    await plain.flush()

    async def counted() -> bool:
        return await refusals(guarded) == before + 500

    await until(counted, 10, "all are counted")
    lines = guarded.pods[0].logged("reply_subject.refused")
    assert 1 <= len(lines) <= 2
    assert lines[0]["subject"] == DECIDE
    assert {"reply_subject", "reason", "unsaid"} <= set(lines[0])
    subscription = await owner.jetstream().subscribe(ALERTS, ordered_consumer=True)
    while True:
        alert = orjson.loads((await subscription.next_msg(10)).data)
        if alert["alert_id"].startswith("reply_subject_refused:"):
            break
    assert alert["severity"] == "warning"


@pytest.mark.parametrize("reply", ["_INBOX.a.b", "_INBOX_acme.1", "_ACME.inbox.1", "answers.app-7.1", "invoices.x.y"])
async def test_other_reply_subjects_are_answered(guarded: Fleet, owner: Client, reply: str) -> None:
    """Inboxes of any prefix, and plain subjects that nobody stores."""
    assert (await answer(owner, reply))["ok"] is True


@pytest.mark.parametrize("door", DOORS)
async def test_every_door_refuses(guarded: Fleet, owner: Client, door: str) -> None:
    """Decide, queries, status and admin acts."""
    before, refused = await messages(owner), await refusals(guarded)
    await asked(owner, "caf.exec.result.v1", door)

    async def counted() -> bool:
        return await refusals(guarded) == refused + 1

    await until(counted, 10, "the refusal is counted")
    assert (await answer(owner, "_INBOX.later.2"))["ok"] is True
    assert await messages(owner) == before


async def test_only_listed_prefixes_are_answered(own: Own) -> None:
    """ROUTER_REPLY_PREFIXES, at every door and for the final result; an inbox that is not listed gets nothing."""
    env = {"ROUTER_REPLY_PREFIXES": "_ACME.,_GLOBEX.inbox."}
    fleet, caller = await own(pods=1, policies=ACME, env=env)
    client = caller.client
    for door in DOORS:
        assert await answer(client, "_ACME.1", door)
    assert (await answer(client, "_GLOBEX.inbox.1"))["ok"] is True
    for number, reply in enumerate(("_INBOX.x", "_GLOBEX.other.1", "_ACMEE.1", "answers.1"), 1):
        await asked(client, reply)

        async def counted(number: int = number) -> bool:
            return await refusals(fleet) == number

        await until(counted, 10, reply)
    for subject, allowed in (("_ACME.final", True), ("_INBOX.final", False)):
        reply = await client.subscribe("_ACME.2")
        await asked(client, "_ACME.2", push_assignment=True, options={"result_subject": subject})
        assert orjson.loads((await reply.next_msg(5)).data)["ok"] is allowed
        await reply.unsubscribe()


@pytest.mark.skipif(LEAST_RIGHTS, reason="with its least rights a pod can only answer inboxes")
async def test_a_stream_that_comes_later_is_found(own: Own) -> None:
    """Within the interval of the checks: a subject that was answered is refused once a stream covers it."""
    fleet, caller = await own(pods=1, policies=ACME)
    assert (await answer(caller.client, "later.1"))["ok"] is True
    await caller.client.jetstream().add_stream(name="LATER", subjects=["later.*"])
    await asyncio.to_thread(fleet.nats.kill)  # a pod lists the streams at each connection, too
    await asyncio.to_thread(fleet.nats.start)
    await until(lambda: _refused(fleet, caller, "later.2"), 40, "the stream is found")


async def _refused(fleet: Fleet, caller: Foreign, reply: str) -> bool:
    before = await refusals(fleet)
    await asked(caller.client, reply)
    if not (await caller.raw(orjson.dumps(task("acme")))).data:
        return False  # the pod is not connected again yet
    return await refusals(fleet) == before + 1


async def test_a_pod_with_the_rights_of_the_version_before_serves(servers: None, tmp_path: Path) -> None:
    """It is ready, reports the parts that are off, answers on the plain subjects, and refuses what it can judge."""
    server = NatsProcess(tmp_path / "nats", extra=USERS)
    env = {"ROUTER_NATS_USER": "bound", "ROUTER_NATS_PASSWORD": "bound"}
    async with Fleet(tmp_path / "own", pods=1, env=env, policies=ACME, nats=server) as fleet:
        client = await connect(server.url, user="router", password="of-the-router")  # noqa: S106

        async def degraded() -> dict[str, Any] | None:
            _, body = await fleet.pods[0].readyz()
            return body if len(body["degraded"]) == 2 else None

        ready = await until(degraded, 30, "the part is reported as off")
        assert ready["degraded"] == ["bound_queries", "reply_streams"]
        assert GET_DECISION in ready["degraded_reasons"]["bound_queries"]
        assert "$JS.API.STREAM.LIST" in ready["degraded_reasons"]["reply_streams"]
        assert (await answer(client, "answers.1"))["ok"] is True
        assert (await answer(client, "_INBOX.q", GET_DECISION))["error"]["code"] == "decision_not_found"
        for number, reply in enumerate(("caf.exec.result.v1", "$JS.API.INFO"), 1):
            await asked(client, reply)
            await until(_counts(fleet, number), 10, reply)
        await client.close()


def _counts(fleet: Fleet, wanted: int) -> Callable[[], Any]:
    async def look() -> bool:
        return await refusals(fleet) == wanted

    return look
