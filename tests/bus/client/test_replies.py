"""Replies while the NATS server leaves: kept until they are delivered, for a while."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client

from router.bus.client import replies
from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.errors import PermissionRefused
from tests.fleet.harness import until
from tests.nats_client import connect
from tests.servers import NatsProcess


@pytest.fixture
async def caller(nats_url: str) -> AsyncIterator[Client]:
    """Somebody else's."""
    caller = await connect(nats_url)
    yield caller
    await caller.close()


async def _keeping(bus: Bus) -> None:
    """Return when the server has the pod's subscription to the fate of its replies."""
    bus.replies.server_leaves()
    for _ in range(2):  # the first PING comes before the subscription
        await bus.flush()


async def test_a_plain_reply_has_no_reply_subject(bus: Bus, caller: Client) -> None:
    """Before the server's notice nothing is kept, and callers get what they always got."""
    heard = await caller.subscribe("inbox.a")
    await caller.flush()
    bus.replies.send(b"inbox.a", b"", b"body")
    message = await heard.next_msg(5)
    assert (message.reply, message.data) == ("", b"body")


async def test_a_reply_waits_for_its_caller(bus: Bus, caller: Client) -> None:
    """Callers whose connection was closed subscribe again later: each gets its reply, once."""
    await _keeping(bus)
    for n in range(20):
        bus.replies.send(b"inbox.%d" % n, b"", b"body %d" % n)
    await bus.flush()
    heard = await caller.subscribe("inbox.*")
    await caller.flush()
    messages = [await heard.next_msg(5) for _ in range(20)]
    assert sorted(m.data for m in messages) == sorted(b"body %d" % n for n in range(20))
    await bus.flush()
    with pytest.raises(nats.errors.TimeoutError):
        await heard.next_msg(0.3)


async def test_a_reply_of_the_same_moment_as_the_notice_is_kept(bus: Bus, caller: Client) -> None:
    """Also before the pod can hear that nobody listens: its caller may have been closed already."""
    bus.replies.server_leaves()
    bus.replies.send(b"inbox.d", b"", b"body")
    await bus.flush()
    heard = await caller.subscribe("inbox.d")
    await caller.flush()
    assert (await heard.next_msg(5)).data == b"body"


async def test_a_reply_of_that_moment_leaves_with_a_pod_that_closes(nats_url: str, caller: Client) -> None:
    """Nobody confirms it, and it is not lost."""
    heard = await caller.subscribe("inbox.f")
    await caller.flush()
    bus = Bus(BusOptions((nats_url,)))
    await bus.start()
    assert await bus.wait_connected(10)
    bus.replies.server_leaves()
    bus.replies.send(b"inbox.f", b"", b"body")
    await bus.replies.close()
    await bus.close()
    assert (await heard.next_msg(5)).data == b"body"


async def test_a_reply_is_sent_plainly_where_the_pod_may_not_hear_of_its_fate(
    bus: Bus, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod without the right to subscribe keeps nothing, and holds nothing back."""

    async def refused(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise PermissionRefused("subscribe to _INBOX.>")

    heard = await caller.subscribe("inbox.e")
    await caller.flush()
    monkeypatch.setattr(bus, "subscribe", refused)
    bus.replies.server_leaves()
    bus.replies.send(b"inbox.e", b"", b"body")
    message = await heard.next_msg(5)
    assert (message.reply, message.data) == ("", b"body")
    assert not bus.replies.keeping


async def test_a_reply_whose_caller_is_there_is_sent_once(bus: Bus, caller: Client) -> None:
    """It is confirmed by the server's PONG, and dropped."""
    await _keeping(bus)
    heard = await caller.subscribe("inbox.b")
    await caller.flush()
    bus.replies.send(b"inbox.b", b"", b"body")
    assert (await heard.next_msg(5)).data == b"body"
    with pytest.raises(nats.errors.TimeoutError):
        await heard.next_msg(0.5)


async def test_a_caller_that_never_comes_back_costs_nothing(
    bus: Bus, caller: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reply is dropped after a while."""
    monkeypatch.setattr(replies, "KEEP_S", 0.1)
    await _keeping(bus)
    bus.replies.send(b"inbox.c", b"", b"body")
    await asyncio.sleep(2 * replies.KEEP_S)  # its time passes
    heard = await caller.subscribe("inbox.c")
    await caller.flush()
    with pytest.raises(nats.errors.TimeoutError):
        await heard.next_msg(0.3)


async def test_kept_replies_have_a_bound(bus: Bus, caller: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it replies are sent plainly."""
    monkeypatch.setattr(replies, "MAX_KEPT_BYTES", 10)
    await _keeping(bus)
    bus.replies.send(b"inbox.nobody", b"", bytes(11))
    heard = await caller.subscribe("inbox.d")
    await caller.flush()
    bus.replies.send(b"inbox.d", b"", b"body")
    assert (await heard.next_msg(5)).reply == ""


async def test_the_next_connection_ends_it(own_server: NatsProcess) -> None:
    """Replies that were made without a connection go out on the next one; then nothing is kept any more."""
    bus = Bus(BusOptions((own_server.url,)))
    await bus.start()
    assert await bus.wait_connected(10)
    await _keeping(bus)
    await asyncio.to_thread(own_server.kill)
    await until(lambda: not bus.connected, 10, "the server is gone")
    bus.replies.send(b"inbox.e", b"", b"body")
    await asyncio.to_thread(own_server.start)
    caller = await connect(own_server.url)
    heard = await caller.subscribe("inbox.e")
    assert (await heard.next_msg(10)).data == b"body"
    await until(lambda: not bus.replies.keeping, 10, "replies are sent plainly")
    await caller.close()
    await bus.close()
