"""Callers in another account, and behind a gateway: NATS puts a prefix of its own before their reply subjects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fleet.conftest import Own
from tests.fleet.foreign import GET_DECISION, Foreign, Worker, task
from tests.fleet.harness import PLAIN
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


@pytest.fixture
async def far(servers: None, tmp_path: Path) -> AsyncIterator[tuple[NatsProcess, NatsProcess]]:
    """Two servers, each a cluster of its own, joined by gateways; the first has JetStream."""
    ports = free_port(), free_port()
    route = free_port()
    # JetStream behind a gateway wants a cluster; a route to itself makes one of one server.
    cluster = f"cluster {{ name: first, listen: '127.0.0.1:{route}', routes: ['nats://127.0.0.1:{route}'] }}"
    first = NatsProcess(
        tmp_path / "first", extra=f"{cluster}\ngateway {{ name: first, listen: '127.0.0.1:{ports[0]}' }}"
    )
    second = NatsProcess(
        tmp_path / "second",
        extra=(
            f"jetstream: disabled\ngateway {{ name: second, listen: '127.0.0.1:{ports[1]}', "
            f"gateways: [{{ name: first, url: 'nats://127.0.0.1:{ports[0]}' }}] }}"
        ),
    )
    async with AsyncExitStack() as stack:
        for server in (first, second):
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        yield first, second


@pytest.mark.parametrize("prefixes", ["", "_GR_."], ids=["default", "only gateways"])
async def test_a_caller_behind_a_gateway(own: Own, far: tuple[NatsProcess, NatsProcess], prefixes: str) -> None:
    """A supercluster: the reply subject is `_GR_.…`, as the second run proves, which answers nothing else."""
    first, second = far
    env = {"ROUTER_REPLY_PREFIXES": prefixes} if prefixes else {}
    _, local = await own(pods=1, policies=ACME, nats=first, env=env)
    async with Foreign(second.url) as caller:
        assert await is_answered(caller)
        assert await is_answered(local) is not bool(prefixes)
