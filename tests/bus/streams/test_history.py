"""Reading a stream from the outside."""

import asyncio
import contextlib

import pytest

from router.bus.client.connection import Bus
from router.bus.streams.history import BATCH, StreamHistory
from router.bus.streams.registry import Streams
from router.bus.streams.specs import StreamSpec
from router.errors import BusError
from router.ports.bus import StoredMessage


async def stream(bus: Bus, name: str, count: int) -> StreamHistory:
    """A stream of so many messages with ids `m0`, `m1`…"""
    await Streams(bus, [StreamSpec(name, (f"{name}.in", f"{name}.other"), 3600)]).ensure()
    for number in range(count):
        bus.publish(f"{name}.in", b"%d" % number, {"Nats-Msg-Id": f"m{number}"})
    # Asked after all of them, on the same connection: sent is not stored yet. A repeat is acknowledged, and kept once.
    if count:
        await bus.request(f"{name}.in", b"", {"Nats-Msg-Id": f"m{count - 1}"}, timeout_s=5)
    return StreamHistory(bus, name)


async def read(history: StreamHistory, since_ms: int | None = None, subject: str | None = None) -> list[StoredMessage]:
    """All of it."""
    return [kept async for batch in history.read(since_ms=since_ms, subject=subject) for kept in batch]


async def test_a_stream_is_read_whole_in_order_over_several_batches(bus: Bus, name: str) -> None:
    """Every message once, with data, headers, subject, sequence and time."""
    history = await stream(bus, name, 2 * BATCH + 1)
    found = await asyncio.wait_for(read(history), 10)
    assert [k.data for k in found] == [b"%d" % n for n in range(2 * BATCH + 1)]
    assert (found[0].sequence, found[0].subject, found[0].message_id) == (1, f"{name}.in", "m0")
    assert found[0].at_ms <= found[-1].at_ms


async def test_an_empty_stream_ends_at_once(bus: Bus, name: str) -> None:
    """And so does one that has nothing of the subject."""
    history = await stream(bus, name, 0)
    assert await asyncio.wait_for(read(history), 2) == []
    bus.publish(f"{name}.in", b"x")
    await bus.flush()
    assert await asyncio.wait_for(read(history, subject=f"{name}.other"), 2) == []


async def test_since_leaves_out_what_is_older(bus: Bus, name: str) -> None:
    """From that moment on, inclusive."""
    history = await stream(bus, name, 3)
    last = (await read(history))[-1]
    assert {k.sequence for k in await read(history, since_ms=last.at_ms)} >= {last.sequence}
    assert await read(history, since_ms=last.at_ms + 60_000) == []


async def test_holds_names_the_ids_that_are_there(bus: Bus, name: str) -> None:
    """And only those asked for."""
    history = await stream(bus, name, BATCH + 10)
    assert await history.stored_ids({"m3", f"m{BATCH + 5}", "absent"}, 0) == {"m3", f"m{BATCH + 5}"}


async def test_one_message_is_got_and_deleted(bus: Bus, name: str) -> None:
    """By its sequence; afterwards it is not there."""
    history = await stream(bus, name, 2)
    kept = await history.get(2)
    assert kept is not None
    assert (kept.data, kept.message_id, kept.subject) == (b"1", "m1", f"{name}.in")
    await history.delete(2)
    assert await history.get(2) is None


async def test_a_read_leaves_no_consumer_behind(bus: Bus, name: str) -> None:
    """Also one that was ended early."""
    history = await stream(bus, name, BATCH + 1)
    async with contextlib.aclosing(history.read()) as batches:
        async for _ in batches:
            break
    answer = await bus.request(f"$JS.API.CONSUMER.NAMES.{name}", b"")
    assert b'"total":0' in answer.data


async def test_a_stream_that_is_not_there_is_said(bus: Bus, name: str) -> None:
    """By an error, not by silence."""
    with pytest.raises(BusError, match="not found"):
        await read(StreamHistory(bus, name))
