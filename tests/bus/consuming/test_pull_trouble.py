"""A consumer that may not pull or acknowledge any more says so, and works again with the permission."""

import asyncio

import pytest

from router.bus.client.connection import Bus
from router.bus.client.permissions import Refusal
from router.bus.consuming.delivery import Delivery
from router.bus.consuming.pull_loop import PullLoop
from router.bus.streams.registry import Streams
from router.bus.streams.specs import ConsumerSpec, StreamSpec
from tests.bus.conftest import Heard
from tests.bus.guarded import publishing_all_but, users, without
from tests.servers import NatsProcess


class Room:
    """A consumer with short times, and what it has handled."""

    def __init__(self, bus: Bus) -> None:
        spec = ConsumerSpec(stream="S", name="workers", ack_wait_s=1)
        self.bus = bus
        self.streams = Streams(bus, [StreamSpec("S", ("in",), 3600)], [spec])
        self.heard = Heard()
        self.loop = PullLoop(bus, self.streams, spec, self._handle, expires_s=1.0, heartbeat_s=0.2, check_s=0.3)

    async def _handle(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.ack()
            self.heard(delivery.data)

    async def start(self) -> None:
        """Pull."""
        await self.streams.ensure()
        await self.loop.start()
        await self.loop.check_permission()

    async def until(self, deaf: str, mute: str = "") -> None:
        """Wait until the trouble reads so; empty: there is none."""

        async with asyncio.timeout(15):
            while (_named(self.loop.trouble.deaf), _named(self.loop.trouble.mute)) != (deaf, mute):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)


def _named(refusal: Refusal | None) -> str:
    return "" if refusal is None else refusal.subject


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (publishing_all_but("$JS.API.CONSUMER.MSG.NEXT.S.workers"), "$JS.API.CONSUMER.MSG.NEXT.S.workers"),
        (publishing_all_but("$JS.API.>"), "$JS.API.CONSUMER.MSG.NEXT.S.workers"),
        (without("_INBOX.>"), "_INBOX.>"),
    ],
    ids=["pull", "api", "inbox"],
)
async def test_a_deaf_consumer_hears_again(
    guarded_server: NatsProcess, guarded_bus: Bus, extra: str, named: str
) -> None:
    """It names the subject to permit; what came meanwhile is handled once."""
    room = Room(guarded_bus)
    await room.start()
    try:
        guarded_bus.publish("in", b"before")
        await room.heard.until(1)
        await room.until("")
        await asyncio.to_thread(guarded_server.reload, extra)
        await room.until(named)
        guarded_bus.publish("in", b"meanwhile")
        await guarded_bus.flush()
        await asyncio.to_thread(guarded_server.reload, users())
        await room.until("")
        assert await room.heard.until(2) == [b"before", b"meanwhile"]
    finally:
        await room.loop.stop()


@pytest.mark.parametrize("denied", ["$JS.ACK.>", "$JS.ACK.S.>", "$JS.ACK.S.workers.*.*.*.*.*"])
async def test_refused_acks_are_named_until_one_passes(
    guarded_server: NatsProcess, guarded_bus: Bus, denied: str
) -> None:
    """The message comes again until it is acknowledged, then no more."""
    room = Room(guarded_bus)
    await room.start()
    try:
        await asyncio.to_thread(guarded_server.reload, publishing_all_but(denied))
        guarded_bus.publish("in", b"x")
        await room.until("", "$JS.ACK.S.workers.>")
        await room.heard.until(2)
        await asyncio.to_thread(guarded_server.reload, users())
        await room.until("")
        async with asyncio.timeout(10):
            while True:
                info = await room.streams.consumer("S", name="workers")
                assert info is not None
                if info.num_ack_pending == 0:
                    break
                await asyncio.sleep(0.05)
    finally:
        await room.loop.stop()


async def test_acks_of_other_consumers_are_not_its_own(guarded_server: NatsProcess, guarded_bus: Bus) -> None:
    """A refused ack of somebody else on this connection is no trouble here."""
    room = Room(guarded_bus)
    await room.start()
    try:
        await asyncio.to_thread(guarded_server.reload, publishing_all_but("$JS.ACK.S.others.>", "$JS.ACK.T.>"))
        for subject in ("$JS.ACK.S.others.1.1.1.1.1", "$JS.ACK.T.workers.1.1.1.1.1"):
            guarded_bus.publish(subject, b"+ACK")
        await guarded_bus.flush()
        await room.until("")
    finally:
        await room.loop.stop()


async def test_a_consumer_behind_a_leaf_node_finds_itself_in_longer_subjects(guarded_bus: Bus) -> None:
    """`$JS.ACK.<domain>.<account>.<stream>.<consumer>.…`; what to permit has them too."""
    room = Room(guarded_bus)
    await room.start()
    try:
        guarded_bus.on_publish_refused[-1](Refusal("publish", "$JS.ACK.hub.ACCOUNT.S.workers.1.1.1.1.1.abcd"))
        await room.until("", "$JS.ACK.hub.ACCOUNT.S.workers.>")
        await room.until("")
    finally:
        await room.loop.stop()
