"""Permissions that are taken away while the bus runs: lost subscriptions come back with the permission."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.errors import PermissionRefused
from tests.bus.conftest import Heard
from tests.bus.guarded import publishing_all_but, users, without
from tests.servers import NatsProcess


@pytest.fixture
async def other(guarded_server: NatsProcess) -> AsyncIterator[Bus]:
    """Connected as somebody who may do everything."""
    bus = Bus(BusOptions((guarded_server.url,)))
    await bus.start()
    assert await bus.wait_connected(10)
    yield bus
    await bus.close()


async def is_lost(bus: Bus, *subjects: str, within_s: float = 15.0) -> None:
    """Wait until exactly these subscriptions are lost."""
    give_up = time.monotonic() + within_s
    while set(bus.lost) != set(subjects):
        assert time.monotonic() < give_up, f"lost: {dict(bus.lost)}, not {subjects}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("subject", "queue", "denied"),
    [
        ("lost.Plain", "", "lost.Plain"),
        ("lost.queue", "router", "lost.>"),
        ("lost.>", "", "lost.>"),
        ("lost.star.*", "router", "lost.*.*"),
        ("lost.queue", "router", "lost.queue router"),
    ],
)
async def test_a_lost_subscription_hears_again(
    guarded_server: NatsProcess, guarded_bus: Bus, other: Bus, subject: str, queue: str, denied: str
) -> None:
    """It is named, with its reason, as long as it is refused; then each message comes once."""
    if " " in denied and guarded_bus.server_version < (2, 14, 0):
        pytest.skip("NATS before 2.14 does not apply a denied queue group to subscriptions at a reload")
    heard, kept = Heard(), Heard()
    await guarded_bus.subscribe(subject, lambda _s, _r, data, _h: heard(data), queue=queue)
    await guarded_bus.subscribe("kept", lambda _s, _r, data, _h: kept(data))
    await asyncio.to_thread(guarded_server.reload, without(denied))
    await is_lost(guarded_bus, subject)
    assert str(guarded_bus.lost[subject]) == f"NATS does not permit this user to subscribe to {subject}"
    target = subject.replace(">", "a.b").replace("*", "c")
    other.publish(target, b"unheard")
    other.publish("kept", b"x")
    assert await kept.until(1) == [b"x"]
    await asyncio.to_thread(guarded_server.reload, users())
    await is_lost(guarded_bus)
    other.publish(target, b"heard")
    other.publish(target, b"once")
    assert await heard.until(2) == [b"heard", b"once"]


async def test_it_is_tried_again_within_15_s_for_ever(guarded_server: NatsProcess, guarded_bus: Bus) -> None:
    """Also after several attempts that were refused."""
    await guarded_bus.subscribe("lost", lambda *_: None)
    await asyncio.to_thread(guarded_server.reload, without("lost"))
    await is_lost(guarded_bus, "lost")
    give_up = time.monotonic() + 60
    while sum('Subject "lost"' in line for line in guarded_server.violations()) < 4:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)
    await asyncio.to_thread(guarded_server.reload, users())
    await is_lost(guarded_bus, within_s=15)


async def test_only_what_is_permitted_again_comes_back(guarded_server: NatsProcess, guarded_bus: Bus) -> None:
    """Two are lost, one returns."""
    for subject in ("lost.a", "lost.b"):
        await guarded_bus.subscribe(subject, lambda *_: None)
    await asyncio.to_thread(guarded_server.reload, without("lost.>"))
    await is_lost(guarded_bus, "lost.a", "lost.b")
    await asyncio.to_thread(guarded_server.reload, without("lost.a"))
    await is_lost(guarded_bus, "lost.a")
    await asyncio.to_thread(guarded_server.reload, users())
    await is_lost(guarded_bus)


async def test_it_is_lost_over_a_reconnect(guarded_server: NatsProcess, guarded_bus: Bus, other: Bus) -> None:
    """The server is restarted without the permission, and once more with it."""
    heard, back = Heard(), Heard()
    await guarded_bus.subscribe("lost", lambda _s, _r, data, _h: heard(data), queue="router")
    await asyncio.to_thread(guarded_server.reload, without("lost"))
    await is_lost(guarded_bus, "lost")
    guarded_bus.on_connect.append(back)
    for round_, extra in enumerate((without("lost"), users()), 1):
        await asyncio.to_thread(guarded_server.stop)
        guarded_server.extra = extra
        await asyncio.to_thread(guarded_server.start)
        await back.until(round_)
        if round_ == 1:
            await guarded_bus.flush()
            assert set(guarded_bus.lost) == {"lost"}
    await is_lost(guarded_bus)
    give_up = time.monotonic() + 10
    while not other.connected:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)
    other.publish("lost", b"x")
    assert await heard.until(1) == [b"x"]


async def test_a_closed_subscription_is_not_lost(guarded_server: NatsProcess, guarded_bus: Bus) -> None:
    """Nobody misses it."""
    subscription = await guarded_bus.subscribe("lost", lambda *_: None)
    await asyncio.to_thread(guarded_server.reload, without("lost"))
    await is_lost(guarded_bus, "lost")
    await subscription.close()
    await is_lost(guarded_bus)


async def test_an_optional_subscription_comes_with_the_permission(
    guarded_server: NatsProcess, guarded_bus: Bus, other: Bus
) -> None:
    """It is no error that it is refused at first; a needed one is, and leaves nothing behind."""
    heard = Heard()
    await asyncio.to_thread(guarded_server.reload, without("lost.>"))
    with pytest.raises(PermissionRefused, match=r"subscribe to lost\.needed"):
        await guarded_bus.subscribe("lost.needed", lambda *_: None)
    assert dict(guarded_bus.lost) == {}
    await guarded_bus.subscribe("lost.optional", lambda _s, _r, data, _h: heard(data), optional=True)
    assert set(guarded_bus.lost) == {"lost.optional"}
    await asyncio.to_thread(guarded_server.reload, users())
    await is_lost(guarded_bus)
    other.publish("lost.optional", b"x")
    assert await heard.until(1) == [b"x"]


async def test_requests_work_again_with_the_inboxes(guarded_server: NatsProcess, guarded_bus: Bus, other: Bus) -> None:
    """The replies of requests come to an inbox of nats-py's, which is lost and regained like any other."""
    await other.subscribe("echo", lambda _s, reply, data, _h: other.publish(reply.decode(), data))
    await other.flush()
    assert (await guarded_bus.request("echo", b"1")).data == b"1"
    await asyncio.to_thread(guarded_server.reload, without("_INBOX.>"))
    with pytest.raises(PermissionRefused, match=r"subscribe to _INBOX\.>: permit it"):
        await guarded_bus.request("echo", b"2", timeout_s=1.0)
    assert str(guarded_bus.inbox_refused).startswith("NATS does not permit this user to subscribe to _INBOX.>")
    await asyncio.to_thread(guarded_server.reload, users())
    await is_lost(guarded_bus)
    assert guarded_bus.inbox_refused is None
    assert (await guarded_bus.request("echo", b"3")).data == b"3"


async def test_a_refused_publish_is_told_for_its_moment(
    guarded_server: NatsProcess, guarded_bus: Bus, other: Bus
) -> None:
    """With the case of the subject; what is permitted since is not blamed for a later timeout."""
    refusals = Heard()
    guarded_bus.on_publish_refused.append(lambda refusal: refusals(str(refusal)))
    await other.subscribe("Deny.Me", lambda *_: None)
    await other.flush()
    await asyncio.to_thread(guarded_server.reload, publishing_all_but("Deny.>"))
    began = time.monotonic()
    with pytest.raises(PermissionRefused, match=r"publish to Deny\.Me"):
        await guarded_bus.request("Deny.Me", b"", timeout_s=0.5)
    assert refusals.items == ["NATS does not permit this user to publish to Deny.Me"]
    assert guarded_bus.publish_refused("Deny.Me", began) is not None
    await asyncio.to_thread(guarded_server.reload, users())
    began = time.monotonic()
    with pytest.raises(Exception, match=r"no reply on Deny\.Me"):
        await guarded_bus.request("Deny.Me", b"", timeout_s=0.2)
    assert guarded_bus.publish_refused("Deny.Me", began) is None
    assert dict(guarded_bus.lost) == {}
