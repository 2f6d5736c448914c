"""Callers in another account, and behind a gateway: NATS may put a prefix of its own before their reply subjects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fleet.conftest import Own
from tests.fleet.foreign import GET_DECISION, Foreign, Worker, task
from tests.fleet.harness import PLAIN, until
from tests.servers import NatsProcess, free_port

ACME = {"acme": {"default": PLAIN}}
ACCOUNTS = """
accounts {
  ROUTER { jetstream: enabled, users: [{ user: router, password: pw }],
           exports: [{ service: "beamline.router.v1.>" }, { stream: "acme.results.>" }] }
  APP { users: [{ user: app, password: pw }],
        imports: [{ service: { account: ROUTER, subject: "beamline.router.v1.>" } },
                  { stream: { account: ROUTER, subject: "acme.results.>" } }] }
}
no_auth_user: router
"""
DROPPED_S = 1.5


async def is_answered(caller: Foreign) -> bool:
    """Whether a decide is answered at all."""
    try:
        reply = await caller.ask(task("acme"), within_s=DROPPED_S)
    except TimeoutError:
        return False
    return reply.ok


@pytest.mark.parametrize("prefixes", ["", "_R_."], ids=["default", "only imports"])
async def test_a_caller_of_another_account(own: Own, tmp_path: Path, prefixes: str) -> None:
    """A service import: the reply subject is `_R_.…`, as the second run proves, which answers nothing else."""
    nats = NatsProcess(tmp_path / "nats", extra=ACCOUNTS)
    env = {"ROUTER_RESULT_SUBJECT_PREFIXES": "acme.results."} | (
        {"ROUTER_REPLY_PREFIXES": prefixes} if prefixes else {}
    )
    _, local = await own(pods=1, policies=ACME, nats=nats, env=env)
    async with Foreign(nats.url.replace("nats://", "nats://app:pw@")) as caller:
        first = await caller.ask(task("acme", "one"))
        found = await caller.ask({"tenant_id": "acme", "request_id": "one"}, subject=GET_DECISION)
        assert found.decision["decision_id"] == first.decision["decision_id"]
        assert await is_answered(local) is not bool(prefixes)
        # An inbox of the caller is in another account than the pods: a final result needs a subject that is exported.
        await Worker(local).start()
        finals = await caller.core("acme.results.7")
        options = {"result_subject": "acme.results.7"}
        assert (await caller.ask(task("acme", push_assignment=True, options=options))).ok
        assert (await finals.one())["status"] == "success"


class Supercluster:
    """Two servers, each a cluster of its own, joined by gateways. JetStream is at a hub of which the first is a leaf:
    in a server with a gateway it wants three of them."""

    def __init__(self, folder: Path) -> None:
        leaf, first, second = free_port(), free_port(), free_port()
        self.hub = NatsProcess(folder / "hub", extra=f"leafnodes {{ listen: 127.0.0.1:{leaf} }}", domain="hub")
        self.first = NatsProcess(
            folder / "first",
            extra=f"jetstream: disabled\nleafnodes {{ remotes: [{{ url: 'nats-leaf://127.0.0.1:{leaf}' }}] }}\n"
            f"gateway {{ name: first, listen: '127.0.0.1:{first}' }}",
        )
        self.second = NatsProcess(
            folder / "second",
            extra=f"jetstream: disabled\ngateway {{ name: second, listen: '127.0.0.1:{second}', "
            f"gateways: [{{ name: first, url: 'nats://127.0.0.1:{first}' }}] }}",
        )


@pytest.fixture
async def far(servers: None, tmp_path: Path) -> AsyncIterator[Supercluster]:
    """Running."""
    servers_ = Supercluster(tmp_path)
    async with AsyncExitStack() as stack:
        for server in (servers_.hub, servers_.first, servers_.second):
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        yield servers_


@pytest.mark.parametrize("prefixes", ["", "_ACME."], ids=["default", "listed"])
async def test_a_caller_behind_a_gateway(own: Own, far: Supercluster, prefixes: str) -> None:
    """A supercluster. Today's servers pass the reply subject as it is; the form in which a gateway wraps one is in
    `tests/bus/streams/test_reply_subjects.py`."""
    env = {"ROUTER_NATS_JS_DOMAIN": "hub"} | ({"ROUTER_REPLY_PREFIXES": prefixes} if prefixes else {})
    _, local = await own(pods=1, policies=ACME, nats=far.first, env=env)
    async with Foreign(far.second.url, inbox_prefix="_ACME.inbox" if prefixes else "_INBOX") as caller:

        async def answered() -> bool:
            return await is_answered(caller)

        # The gateway learns of the pod's subscription a moment after it is made.
        await until(answered, 30, "a caller behind the gateway is answered")
        assert await is_answered(local) is not bool(prefixes)
