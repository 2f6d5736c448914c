"""What the server does not permit: said at once, by name, and to nobody else."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.bus.publishing.puback import publish_once
from router.bus.streams import api
from router.bus.streams.history import StreamHistory
from router.errors import BusError, PermissionRefused
from tests.bus.conftest import Heard
from tests.servers import NatsProcess

LONG_S = 30.0
USERS = """
no_auth_user: all
authorization { users: [
  { user: all, password: pw }
  { user: some, password: pw, permissions: {
      publish: { deny: ["Not.Mine.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.STREAM.INFO.Closed"] },
      subscribe: { deny: ["Not.Mine.>"] } } }
  { user: deaf, password: pw, permissions: { subscribe: { deny: ["_INBOX.>"] } } }
] }
"""


@pytest.fixture
async def server(servers: None, tmp_path: Path) -> AsyncIterator[NatsProcess]:
    """A server with a user that lacks some rights, and one that hears no inbox."""
    nats = NatsProcess(tmp_path, extra=USERS)
    await asyncio.to_thread(nats.start)
    yield nats
    await asyncio.to_thread(nats.stop)


async def connected(server: NatsProcess, user: str | None = None) -> Bus:
    """A bus as this user."""
    bus = Bus(BusOptions((server.url,), user=user, password=None if user is None else "pw"))
    await bus.start()
    assert await bus.wait_connected(10)
    return bus


@pytest.fixture
async def some(server: NatsProcess) -> AsyncIterator[Bus]:
    """The user that lacks some rights."""
    bus = await connected(server, "some")
    yield bus
    await bus.close()


async def test_a_refused_request_ends_at_once_and_names_the_subject_as_it_is_written(some: Bus) -> None:
    """Not after its time limit, and with capitals; a request on another subject goes on waiting."""
    await some.subscribe("mine.silent", lambda *_: None)
    other = asyncio.create_task(some.request("mine.silent", b"", timeout_s=LONG_S))
    started = time.monotonic()
    results = await asyncio.gather(
        *(some.request("Not.Mine.One", b"", timeout_s=LONG_S) for _ in range(3)),
        some.request("Not.Mine.Two", b"", timeout_s=LONG_S),
        return_exceptions=True,
    )
    assert time.monotonic() - started < LONG_S / 2
    assert [type(r) for r in results] == [PermissionRefused] * 4
    assert str(results[0]) == "NATS does not permit this user to publish to Not.Mine.One"
    assert str(results[3]) == "NATS does not permit this user to publish to Not.Mine.Two"
    assert not other.done()
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


@pytest.mark.parametrize("again", [1, 2])
async def test_without_inboxes_no_request_waits(server: NatsProcess, again: int) -> None:
    """The refusal of the inbox ends what waits, and each request after it; it names the setting."""
    bus = await connected(server, "deaf")
    for _ in range(again):
        with pytest.raises(PermissionRefused, match=r"subscribe to _INBOX\.>.*ROUTER_NATS_INBOX_PREFIX"):
            await bus.request("Any.Subject", b"", timeout_s=LONG_S)
    await bus.close()


async def test_calls_of_the_api_publishes_and_subscriptions(some: Bus) -> None:
    """Each way to use a subject says who refused it."""
    with pytest.raises(PermissionRefused, match=r"publish to \$JS\.API\.STREAM\.INFO\.Closed"):
        await api.call(some, "STREAM.INFO.Closed", None, dict, timeout_s=LONG_S)
    with pytest.raises(PermissionRefused, match=r"publish to Not\.Mine\.Three"):
        await publish_once(some, "Not.Mine.Three", b"", {})
    with pytest.raises(PermissionRefused, match=r"subscribe to Not\.Mine\.Four"):
        await some.subscribe("Not.Mine.Four", lambda *_: None)
    began = time.monotonic()
    some.publish("Not.Mine.Five", b"")
    with pytest.raises(PermissionRefused, match=r"publish to Not\.Mine\.Five"):
        await some.check_published("Not.Mine.Five", began)
    some.publish("mine.five", b"")
    await some.check_published("mine.five", began)


async def test_a_stream_whose_pulls_are_refused(server: NatsProcess, some: Bus) -> None:
    """Reading ends at once, not when the server has delivered nothing for ten seconds."""
    everything = await connected(server)
    await api.call(everything, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "storage": "memory"}, dict)
    await publish_once(everything, "s.1", b"x", {})
    await everything.close()
    started = time.monotonic()
    with pytest.raises(PermissionRefused, match=r"publish to \$JS\.API\.CONSUMER\.MSG\.NEXT\.S\."):
        async for _ in StreamHistory(some, "S").read():
            pass
    assert time.monotonic() - started < 5


async def test_a_refusal_is_forgotten_with_its_connection(server: NatsProcess, some: Bus) -> None:
    """After a reconnect a request is sent again: the right may have been given meanwhile."""
    with pytest.raises(PermissionRefused):
        await some.request("Not.Mine.Six", b"", timeout_s=LONG_S)
    back = Heard()
    some.on_connect.append(back)
    server.extra = USERS.replace('"Not.Mine.>", ', "")
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await back.until(1, timeout_s=20)
    with pytest.raises(BusError) as error:
        await some.request("Not.Mine.Six", b"", timeout_s=LONG_S)
    assert not isinstance(error.value, PermissionRefused)
