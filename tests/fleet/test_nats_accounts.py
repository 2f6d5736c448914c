"""NATS as platform teams run it: users with the least rights, inboxes of their own, a JetStream domain, nkeys."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it carries no types
import pytest
from nats.js import JetStreamContext

from tests.fleet.conftest import Own
from tests.fleet.foreign import USAGE, Foreign, Worker, task
from tests.fleet.harness import PLAIN, READY_S, Fleet, Pod, assert_quiet, until
from tests.servers import NatsProcess, free_port

ACME = {"acme": {"default": PLAIN}}
PUBLISH = ("$JS.API.>", "$JS.ACK.>", "beamline.>", "caf.>", "_INBOX.>")
SUBSCRIBE = ("_ROUTER.inbox.>", "beamline.>", "caf.>")


def users(publish: tuple[str, ...], subscribe: tuple[str, ...]) -> str:
    """A server with a user `router` of these rights, and one without a name who may do everything."""
    rights = f"publish: {list(publish)}, subscribe: {list(subscribe)}".replace("'", '"')
    return (
        f"accounts {{ A {{ jetstream: enabled, users: [{{user: router, password: pw, permissions: {{ {rights} }} }}, "
        "{user: all, password: all}] } }\nno_auth_user: all"
    )


LOGIN = {
    "ROUTER_NATS_USER": "router",
    "ROUTER_NATS_PASSWORD": "pw",
    "ROUTER_NATS_INBOX_PREFIX": "_ROUTER.inbox",
}


async def goes_the_whole_way(fleet: Fleet, caller: Foreign, watched: JetStreamContext | None = None) -> None:
    """A task is decided, dispatched, done and metered."""
    async with Foreign(fleet.nats.url) as other:
        worker = await Worker(other).start()
        seen: list[Any] = []
        reply = await caller.ask(task("acme", push_assignment=True))
        assert reply.ok, reply.body
        await until(lambda: worker.taken, 30, "the task is executed")
        if watched is None:
            usage = await caller.watch(USAGE)
            await usage.one(assignment_id=reply.context["assignment_id"])
        else:
            subscription = await watched.subscribe(USAGE, ordered_consumer=True)
            seen.append(await subscription.next_msg(timeout=10))
            assert reply.context["assignment_id"].encode() in seen[0].data


async def test_a_user_with_inboxes_of_its_own(own: Own, tmp_path: Path) -> None:
    """It may subscribe to `_ROUTER.inbox.>` and to no other inbox: the fleet works."""
    nats = NatsProcess(tmp_path / "nats", extra=users(PUBLISH, SUBSCRIBE))
    fleet, caller = await own(pods=1, policies=ACME, nats=nats, env=LOGIN)
    await goes_the_whole_way(fleet, caller)
    assert "permit" not in fleet.pods[0].log.read_text()


def reason(pod: Pod, condition: str, *words: str) -> Callable[[], Any]:
    """Whether /readyz is 503 and the condition's reason holds all these words."""

    async def look() -> bool:
        status, body = await pod.readyz()
        return status == 503 and all(word in body["reasons"].get(condition, "") for word in words)

    return look


@pytest.mark.parametrize(
    ("publish", "subscribe", "condition", "words"),
    [
        (PUBLISH, ("_INBOX.>", "beamline.>", "caf.>"), "bus", ("subscribe to _ROUTER.inbox.>", "INBOX_PREFIX")),
        (PUBLISH, ("_ROUTER.inbox.>", "caf.>"), "bus", ("subscribe to beamline.router.internal.v1.policy_changed",)),
        (PUBLISH, ("_ROUTER.inbox.>", "beamline.router.>"), "bus", ("subscribe to caf.status.heartbeat.v1",)),
        (PUBLISH[1:], SUBSCRIBE, "streams", ("publish to $JS.API.STREAM.INFO.ASSIGN",)),
        (
            ("$JS.API.STREAM.>", *PUBLISH[1:]),
            SUBSCRIBE,
            "streams",
            ("publish to $JS.API.CONSUMER.INFO.ASSIGN.workers",),
        ),
        (
            ("$JS.API.STREAM.>", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.DURABLE.>", *PUBLISH[1:]),
            SUBSCRIBE,
            "serving",
            ("publish to $JS.API.CONSUMER.MSG.NEXT.RESULT.router-fleet-results",),
        ),
        (
            PUBLISH,
            (
                "_ROUTER.inbox.>",
                "caf.>",
                "beamline.router.internal.>",
                "beamline.router.v1.get_decision",
                "beamline.router.v1.get_decision.>",
                "beamline.router.v1.status.>",
                "beamline.router.v1.admin.>",
            ),
            "serving",
            ("subscribe to beamline.router.v1.decide",),
        ),
    ],
    ids=["inbox", "policies", "workers", "streams", "consumers", "pulls", "decide"],
)
async def test_a_missing_permission_is_the_reason(
    own: Own, tmp_path: Path, publish: Any, subscribe: Any, condition: str, words: Any
) -> None:
    """/readyz names the subject that the user may not use, and the log is quiet."""
    nats = NatsProcess(tmp_path / "nats", extra=users(publish, subscribe))
    fleet, _ = await own(pods=0, policies=ACME, nats=nats, env=LOGIN)
    pod = await fleet.pod().start(wait=False)
    await until(reason(pod, condition, "NATS does not permit this user to", *words), READY_S, "the reason")
    await assert_quiet(pod)


async def test_a_user_that_is_not_let_in_is_the_reason(own: Own, tmp_path: Path) -> None:
    """A wrong password: the server's words, and the setting to look at."""
    nats = NatsProcess(tmp_path / "nats", extra=users(PUBLISH, SUBSCRIBE))
    fleet, _ = await own(pods=0, policies=ACME, nats=nats, env=LOGIN | {"ROUTER_NATS_PASSWORD": "wrong"})
    pod = await fleet.pod().start(wait=False)
    words = ("NATS is unavailable: authorization: ", "Authorization Violation", "ROUTER_NATS_PASSWORD")
    await until(reason(pod, "bus", *words), READY_S, "the reason")


async def test_an_assignment_that_may_not_be_published(own: Own, tmp_path: Path) -> None:
    """The right to publish work is missing: the task ends with that reason, and pushes are refused."""
    publish = ("$JS.API.>", "$JS.ACK.>", "beamline.>", "caf.exec.assigned.v1", "_INBOX.>")
    nats = NatsProcess(tmp_path / "nats", extra=users(publish, SUBSCRIBE))
    _, caller = await own(pods=1, policies=ACME, nats=nats, env=LOGIN | {"ROUTER_PUBLISH_TIMEOUT": "2s"})
    inbox = caller.client.new_inbox()
    finals = await caller.core(inbox)
    options = {"result_subject": inbox, "deadline_ms": 20_000}
    assert (await caller.ask(task("acme", push_assignment=True, options=options))).ok
    end = await finals.one(15)
    assert end["error_code"] == "DISPATCH_FAILED"
    assert "NATS does not permit this user to publish to caf.exec.assign.v1" in end["error_message"]

    async def refused() -> bool:
        reply = await caller.ask(task("acme", push_assignment=True))
        return not reply.ok and "not permit" in reply.error["message"]

    await until(refused, 30, "pushes are refused")


async def test_an_nkey_logs_in(own: Own, tmp_path: Path) -> None:
    """The seed is in a file, and nowhere else."""
    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(seed).public_key.decode()
    file = tmp_path / "router.nk"
    file.write_bytes(bytes(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)))
    extra = (
        f"accounts {{ A {{ jetstream: enabled, users: [{{nkey: {public}}}, {{user: all, password: all}}] }} }}\n"
        "no_auth_user: all"
    )
    nats = NatsProcess(tmp_path / "nats", extra=extra)
    fleet, caller = await own(pods=1, policies=ACME, nats=nats, env={"ROUTER_NATS_NKEY_SEED_FILE": str(file)})
    await goes_the_whole_way(fleet, caller)


class Hub:
    """A hub with JetStream in domain `hub`, and the configuration of a leaf node without it."""

    def __init__(self, folder: Path) -> None:
        self.leaf_port = free_port()
        hub = f"leafnodes {{ listen: 127.0.0.1:{self.leaf_port} }}"
        self.server = NatsProcess(folder, extra=hub, domain="hub")
        self.leaf = (
            f"jetstream: disabled\nleafnodes {{ remotes: [{{ url: 'nats-leaf://127.0.0.1:{self.leaf_port}' }}] }}"
        )


@pytest.mark.parametrize(
    "env",
    [{"ROUTER_NATS_JS_DOMAIN": "hub"}, {"ROUTER_NATS_JS_API_PREFIX": "$JS.hub.API"}],
    ids=["domain", "API prefix"],
)
async def test_a_jetstream_domain_behind_a_leaf_node(own: Own, tmp_path: Path, env: dict[str, str]) -> None:
    """Pods, callers and workers are on the leaf; the streams are at the hub."""
    hub = Hub(tmp_path / "hub")
    await asyncio.to_thread(hub.server.start)
    try:
        nats = NatsProcess(tmp_path / "nats", extra=hub.leaf)
        fleet, caller = await own(pods=1, policies=ACME, nats=nats, env=env)
        await goes_the_whole_way(fleet, caller, caller.client.jetstream(domain="hub"))
    finally:
        await asyncio.to_thread(hub.server.stop)
