"""The pull loop on a real JetStream, with what happens to servers and consumers."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.bus.consuming.delivery import Delivery
from router.bus.consuming.pull_loop import PullLoop
from router.bus.streams.registry import Streams
from router.bus.streams.specs import ConsumerSpec, StreamSpec
from tests.bus.conftest import Heard
from tests.bus.jetstream import delete
from tests.servers import NatsProcess

Handle = Callable[[list[Delivery]], Awaitable[None]]


async def fleet(bus: Bus, name: str) -> Streams:
    """A stream over `<name>.in` with the consumer `workers`."""
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600)], [ConsumerSpec(stream=name, name="workers")])
    await streams.ensure()
    return streams


def loop_of(bus: Bus, streams: Streams, handle: Handle, *, batch: int = 256, on_stall: Heard | None = None) -> PullLoop:
    """A loop with short intervals."""
    return PullLoop(
        bus,
        streams,
        streams.consumers[0],
        handle,
        batch=batch,
        expires_s=1.0,
        heartbeat_s=0.2,
        check_s=0.3,
        on_stall=on_stall,
    )


def acking(heard: Heard) -> Handle:
    """A handler that acks all and notes their data."""

    async def handle(batch: list[Delivery]) -> None:
        for delivery in batch:
            delivery.ack()
            heard(delivery.data)

    return handle


def publish(bus: Bus, name: str, numbers: range) -> None:
    """Plain core publishes, as existing workers make them."""
    for number in numbers:
        bus.publish(f"{name}.in", b"%d" % number, {"trace_id": f"t{number}"})


async def test_all_come_in_order_in_batches(bus: Bus, name: str) -> None:
    """A thousand results through batches of 100: each once, in order, acked, and no batch is larger."""
    streams, heard, sizes = await fleet(bus, name), Heard(), []
    inner = acking(heard)

    async def handle(batch: list[Delivery]) -> None:
        sizes.append(len(batch))
        await inner(batch)

    loop = loop_of(bus, streams, handle, batch=100)
    publish(bus, name, range(1000))
    await loop.start()
    assert await heard.until(1000) == [b"%d" % number for number in range(1000)]
    await loop.stop()
    assert max(sizes) <= 100
    info = await streams.consumer(name, name="workers")
    assert info is not None
    assert (info.num_pending, info.num_ack_pending, info.num_redelivered) == (0, 0, 0)


async def test_a_delivery_says_what_it_is(bus: Bus, name: str) -> None:
    """Data, headers, the original subject, the sequence, and the count of deliveries, that grows after a nak."""
    streams, heard = await fleet(bus, name), Heard()

    async def handle(batch: list[Delivery]) -> None:
        for one in batch:
            heard((one.data, dict(one.headers), one.subject, one.sequence, one.delivered))
            if one.delivered == 1:
                one.nak()
            else:
                one.ack()

    loop = loop_of(bus, streams, handle)
    await loop.start()
    publish(bus, name, range(1))
    first = (b"0", {"trace_id": "t0"}, f"{name}.in", 1)
    assert await heard.until(2) == [(*first, 1), (*first, 2)]
    assert loop.redelivered == 1
    await loop.stop()


async def test_term_is_final_and_only_the_first_word_counts(bus: Bus, name: str) -> None:
    """A terminated message never comes again, whatever is said after."""
    streams, heard = await fleet(bus, name), Heard()

    async def handle(batch: list[Delivery]) -> None:
        for one in batch:
            one.in_progress()
            one.term()
            one.nak()
            heard(one.data)

    loop = loop_of(bus, streams, handle)
    await loop.start()
    publish(bus, name, range(2))
    await heard.until(2)
    await bus.flush()
    await loop.stop()
    info = await streams.consumer(name, name="workers")
    assert info is not None
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    assert heard.items == [b"0", b"1"]


async def test_a_failing_handler_gets_the_batch_again(bus: Bus, name: str) -> None:
    """An exception gives back what was not settled, and only that; the loop lives on."""
    streams, heard = await fleet(bus, name), Heard()

    async def handle(batch: list[Delivery]) -> None:
        for one in batch:
            heard((one.data, one.delivered))
            if one.data == b"1" and one.delivered == 1:
                raise RuntimeError("a bug")
            one.ack()

    loop = loop_of(bus, streams, handle)
    publish(bus, name, range(2))
    await loop.start()
    await heard.until(3)
    await loop.stop()
    assert heard.items == [(b"0", 1), (b"1", 1), (b"1", 2)]


async def test_paused_nothing_comes_and_resumed_all(bus: Bus, name: str) -> None:
    """While paused nothing is pulled and nothing is held; after resume all are handled."""
    streams, heard = await fleet(bus, name), Heard()
    loop = loop_of(bus, streams, acking(heard))
    await loop.start()
    publish(bus, name, range(1))
    await heard.until(1)
    loop.pause()
    while loop._subscription is not None:
        await bus.rtt()
    publish(bus, name, range(1, 50))

    async def outstanding() -> tuple[int | None, int | None]:
        info = await streams.consumer(name, name="workers")
        assert info is not None
        return info.num_pending, info.num_ack_pending

    async with asyncio.timeout(5):  # a flushed publish is not stored yet
        while await outstanding() != (49, 0):
            await bus.rtt()
    assert len(heard.items) == 1
    loop.resume()
    assert await heard.until(50) == [b"%d" % number for number in range(50)]
    await loop.stop()


async def test_pausing_gives_back_what_no_handler_has(bus: Bus, name: str) -> None:
    """Messages that arrived behind a slow handler are given to the other pod at once, not after the ack wait."""
    streams, other = await fleet(bus, name), Heard()
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(batch: list[Delivery]) -> None:
        started.set()
        await release.wait()
        for one in batch:
            one.ack()

    first = loop_of(bus, streams, slow, batch=1000)
    await first.start()
    publish(bus, name, range(1))
    await asyncio.wait_for(started.wait(), 5)
    publish(bus, name, range(1, 20))
    while first.received < 20:
        await bus.rtt()
    first.pause()
    release.set()
    second = loop_of(bus, streams, acking(other))
    await second.start()
    assert sorted(await other.until(19, 5)) == sorted(b"%d" % number for number in range(1, 20))  # type: ignore[type-var]
    await first.stop()
    await second.stop()


async def test_stopping_waits_for_the_handler_and_gives_back_the_rest(bus: Bus, name: str) -> None:
    """stop() returns when the batch in hand is handled; the consumer is left with nothing outstanding."""
    streams, heard = await fleet(bus, name), Heard()
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(batch: list[Delivery]) -> None:
        started.set()
        await release.wait()
        await acking(heard)(batch)

    loop = loop_of(bus, streams, slow, batch=5)
    publish(bus, name, range(20))
    await loop.start()
    await asyncio.wait_for(started.wait(), 5)
    stopping = asyncio.create_task(loop.stop())
    await bus.flush()
    assert not stopping.done()
    release.set()
    await stopping
    await bus.flush()
    info = await streams.consumer(name, name="workers")
    assert info is not None
    assert info.num_ack_pending + info.num_pending == 20 - len(heard.items)
    assert 1 <= len(heard.items) <= 5


async def test_a_slow_handler_keeps_what_it_has(bus: Bus, name: str) -> None:
    """Nothing is given out again while it is at work for three ack waits, nor what waits behind its batch."""
    spec = ConsumerSpec(stream=name, name="workers", ack_wait_s=1)
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600)], [spec])
    await streams.ensure()
    heard, prolonged = Heard(), Heard()
    await bus.subscribe(
        f"$JS.ACK.{name}.workers.>", lambda _s, _r, data, _h: prolonged(data) if data == b"+WPI" else None
    )
    release = asyncio.Event()

    async def slow(batch: list[Delivery]) -> None:
        await release.wait()
        await acking(heard)(batch)

    loop = loop_of(bus, streams, slow, batch=2)
    publish(bus, name, range(4))
    await loop.start()
    await prolonged.until(4 * 9, 20)
    release.set()
    assert await heard.until(4) == [b"0", b"1", b"2", b"3"]
    assert (loop.received, loop.redelivered) == (4, 0)
    await loop.stop()


async def test_what_a_stuck_handler_has_goes_to_others(bus: Bus, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ack wait of what it holds is not prolonged for ever."""
    monkeypatch.setattr("router.bus.consuming.ack_wait._MAX_EXTENSIONS", 2)
    spec = ConsumerSpec(stream=name, name="workers", ack_wait_s=1)
    streams = Streams(bus, [StreamSpec(name, (f"{name}.in",), 3600)], [spec])
    await streams.ensure()
    heard, taken = Heard(), Heard()

    async def stuck(batch: list[Delivery]) -> None:
        taken(len(batch))
        await asyncio.Event().wait()

    first, second = loop_of(bus, streams, stuck), loop_of(bus, streams, acking(heard))
    publish(bus, name, range(1))
    await first.start()
    await taken.until(1)
    await second.start()
    assert await heard.until(1) == [b"0"]
    await first.stop(0.01)
    await second.stop()


async def test_stopping_gives_back_what_a_stuck_handler_has(bus: Bus, name: str) -> None:
    """At once: nobody waits for the ack wait of a pod that has gone."""
    streams, heard, taken = await fleet(bus, name), Heard(), Heard()

    async def stuck(batch: list[Delivery]) -> None:
        taken(len(batch))
        await asyncio.Event().wait()

    first, second = loop_of(bus, streams, stuck), loop_of(bus, streams, acking(heard))
    publish(bus, name, range(1))
    await first.start()
    await taken.until(1)
    await first.stop(0.01)
    await second.start()
    assert await heard.until(1) == [b"0"]
    await second.stop()


async def test_a_pull_that_did_not_arrive_is_made_again(bus: Bus, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word from the server for three heartbeats, long before the watchdog looks."""
    streams, heard, lost = await fleet(bus, name), Heard(), Heard()
    send = bus.send

    def losing(data: bytes) -> None:
        if b"CONSUMER.MSG.NEXT" in data and not lost.items:
            lost(data)
        else:
            send(data)

    monkeypatch.setattr(bus, "send", losing)
    loop = PullLoop(bus, streams, streams.consumers[0], acking(heard), expires_s=60.0, heartbeat_s=0.2, check_s=3_600.0)
    await loop.start()
    await lost.until(1)
    publish(bus, name, range(1))
    assert await heard.until(1) == [b"0"]
    assert loop.stalls == 0
    await loop.stop()


async def test_a_deleted_consumer_is_created_again(bus: Bus, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Deleted under the running loop: it is back within a check, and messages flow."""
    streams, heard = await fleet(bus, name), Heard()
    loop = loop_of(bus, streams, acking(heard))
    await loop.start()
    publish(bus, name, range(1))
    await heard.until(1)
    await delete(bus, f"CONSUMER.DELETE.{name}.workers")
    publish(bus, name, range(1, 2))
    await heard.until(lambda items: b"1" in items)
    assert len([r for r in caplog.records if "was missing; created: " in r.message]) == 1
    await loop.stop()


async def test_a_deleted_stream_is_created_again(bus: Bus, name: str) -> None:
    """The loop brings back the stream under its consumer, too."""
    streams, heard = await fleet(bus, name), Heard()
    loop = loop_of(bus, streams, acking(heard))
    await loop.start()
    publish(bus, name, range(1))
    await heard.until(1)
    await delete(bus, f"STREAM.DELETE.{name}")
    async with asyncio.timeout(10):
        while await streams.consumer(name, name="workers") is None:
            await bus.rtt()
    publish(bus, name, range(1, 2))
    assert await heard.until(2) == [b"0", b"1"]
    await loop.stop()


async def test_a_lost_pull_is_noticed(bus: Bus, name: str) -> None:
    """The loop believes in a pull the server does not have: the watchdog begins anew, counts it, messages flow."""
    streams, heard, stalls = await fleet(bus, name), Heard(), Heard()
    loop = loop_of(bus, streams, acking(heard), on_stall=stalls)
    await loop.start()
    publish(bus, name, range(1))
    await heard.until(1)
    assert loop._subscription is not None
    # the server hears of no interest in the inbox any more; the loop does not know
    bus.send(b"UNSUB %d\r\n" % (loop._subscription.sid or 0))
    publish(bus, name, range(1, 2))
    (why, *_) = await stalls.until(1)
    assert why == "1 messages wait for workers and none arrives; NATS answers its pull: nothing"
    await heard.until(2)
    assert loop.stalls >= 1
    await loop.stop()


async def test_the_lag_is_what_waits(bus: Bus, name: str) -> None:
    """While the handler is busy with a batch, and holds another, `lag` says how many nobody was given."""
    streams = await fleet(bus, name)
    release = asyncio.Event()

    async def slow(batch: list[Delivery]) -> None:
        await release.wait()
        for one in batch:
            one.ack()

    loop = loop_of(bus, streams, slow, batch=10)
    publish(bus, name, range(100))
    await loop.start()
    async with asyncio.timeout(5):
        while not (info := await streams.consumer(name, name="workers")) or info.num_ack_pending < 20:
            await bus.rtt()
        while loop.received < 20:
            await bus.rtt()
    assert (info.num_pending, loop.lag) == (80, 80)
    release.set()
    await loop.stop()


async def test_the_backlog_is_watched_while_paused(bus: Bus, name: str) -> None:
    """What came meanwhile, what was given back and what other pods hold without an ack; no stall is taken from it."""
    streams, heard = await fleet(bus, name), Heard()
    loop = loop_of(bus, streams, acking(heard))
    loop.pause()
    await loop.start()
    publish(bus, name, range(150))
    async with asyncio.timeout(5):
        while loop.lag < 150:
            await bus.rtt()
    other = loop_of(bus, streams, _never, batch=20)
    await other.start()
    async with asyncio.timeout(5):
        while not (info := await streams.consumer(name, name="workers")) or info.num_ack_pending < 20:
            await bus.rtt()
    publish(bus, name, range(150, 160))
    async with asyncio.timeout(5):
        while loop.lag < 160:
            await bus.rtt()
    assert loop.stalls == 0
    await other.stop(0.1)
    loop.resume()
    await heard.until(160)
    async with asyncio.timeout(5):
        while loop.lag:
            await bus.rtt()
    await loop.stop()


async def _never(_batch: list[Delivery]) -> None:
    await asyncio.Event().wait()


async def test_the_loop_outlives_kills_of_the_server(own_server: NatsProcess, own_bus: Bus) -> None:
    """kill -9 and restart five times: after each, new messages are handled, and in the end every one was."""
    streams, heard, back = await fleet(own_bus, "K"), Heard(), Heard()
    own_bus.on_connect.append(back)
    loop = loop_of(own_bus, streams, acking(heard))
    await loop.start()
    for round_ in range(5):
        publish(own_bus, "K", range(round_ * 10, round_ * 10 + 10))
        await heard.until(lambda items, last=b"%d" % (round_ * 10 + 9): last in items)  # type: ignore[misc]
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        await back.until(round_ + 1)
    publish(own_bus, "K", range(50, 51))
    await heard.until(lambda items: b"50" in items)
    assert {int(str(item, "ascii")) for item in heard.items if isinstance(item, bytes)} == set(range(51))
    await loop.stop()


async def test_a_lame_duck_is_outlived(servers: None, tmp_path: Path) -> None:
    """The server says that it goes, goes, and comes back: nothing is lost, and the loop pulls again."""
    server = NatsProcess(tmp_path, extra="lame_duck_duration: '30s'\nlame_duck_grace_period: '100ms'")
    await asyncio.to_thread(server.start)
    bus = Bus(BusOptions((server.url,)))
    await bus.start()
    assert await bus.wait_connected(10)
    streams, heard, back = await fleet(bus, "duck"), Heard(), Heard()
    loop = loop_of(bus, streams, acking(heard))
    await loop.start()
    publish(bus, "duck", range(10))
    await heard.until(10)
    bus.on_connect.append(back)
    assert server.process is not None
    server.process.send_signal(signal.SIGUSR2)  # what `nats-server --signal ldm` sends
    await asyncio.to_thread(server.process.wait, 60)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await back.until(1)
    publish(bus, "duck", range(10, 20))
    assert set(await heard.until(20)) == {b"%d" % number for number in range(20)}
    await loop.stop()
    await bus.close()
    await asyncio.to_thread(server.stop)
