"""The client's insides: the parser and the sends."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats import errors

from router.bus.client.connection import Bus
from router.bus.client.fast import FastClient
from router.bus.client.parser import FastParser
from tests.bus.conftest import Heard

Message = tuple[bytes, bytes, bytes, bytes | None]

TOKEN = st.text("abcXYZ019_-", min_size=1, max_size=8).map(str.encode)
BLOCK = st.none() | TOKEN.map(lambda value: b"NATS/1.0\r\nname: %b\r\n\r\n" % value)
MESSAGES = st.lists(st.tuples(TOKEN, st.just(b"") | TOKEN, st.binary(max_size=60), BLOCK), max_size=8)


def wire(message: Message, sid: int) -> bytes:
    """A message as the server sends it."""
    subject, reply, payload, block = message
    middle = b" %b" % reply if reply else b""
    if block is None:
        return b"MSG %b %d%b %d\r\n%b\r\n" % (subject, sid, middle, len(payload), payload)
    size = len(block)
    return b"HMSG %b %d%b %d %d\r\n%b%b\r\n" % (subject, sid, middle, size, size + len(payload), block, payload)


class Stub:
    """What the parser needs of a client, recording."""

    def __init__(self) -> None:
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.slow: list[Message] = []
        self.faults: list[Exception] = []
        self.commands: list[object] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        self.slow.append((subject, reply, data, raw))

    async def _error_cb(self, error: Exception) -> None:
        self.faults.append(error)

    async def _process_ping(self) -> None:
        self.commands.append("PING")

    async def _process_pong(self) -> None:
        self.commands.append("PONG")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.commands.append(info)

    async def _process_err(self, text: str) -> None:
        self.commands.append(text)


def parser(direct: bool = True) -> tuple[FastParser, Stub, list[Message]]:
    """A parser with a direct subscription of id 1."""
    stub = Stub()
    seen: list[Message] = []
    made = FastParser(stub)  # type: ignore[arg-type]  # a stand-in
    if direct:
        made.direct[b"1"] = lambda *message: seen.append(message)
    return made, stub, seen


@given(MESSAGES, st.lists(st.integers(1, 40), max_size=30), st.booleans())
def test_any_cut_gives_the_same_messages(messages: list[Message], cuts: list[int], direct: bool) -> None:
    """However the bytes are cut, each message arrives whole, once and in order, directly or through nats-py."""
    made, stub, seen = parser(direct)
    data = b"PING\r\n".join(wire(message, 1) for message in messages)

    async def feed() -> None:
        rest = data
        for cut in cuts:
            await made.parse(rest[:cut])
            rest = rest[cut:]
        await made.parse(rest)

    asyncio.run(feed())
    assert (seen if direct else stub.slow) == messages
    assert stub.commands == ["PING"] * max(0, len(messages) - 1)


async def test_a_fault_in_a_direct_function_is_reported_and_the_next_message_served() -> None:
    """An exception of one message ends neither the read loop nor its neighbours."""
    made, stub, seen = parser()

    def fail_once(*message: Any) -> None:
        if not stub.faults:
            raise KeyError("x")
        seen.append(message)

    made.direct[b"1"] = fail_once
    await made.parse(wire((b"a", b"", b"1", None), 1) + wire((b"a", b"", b"2", None), 1))
    assert [type(fault) for fault in stub.faults] == [KeyError]
    assert seen == [(b"a", b"", b"2", None)]


@pytest.mark.parametrize(
    "noise", [b"HELLO\r\n", b"MSG a\r\n", b"MSG a 1 x\r\n", b"INFO {\r\n", b"HMSG a 1 b x 3\r\nabc\r\n"]
)
async def test_what_is_not_nats_ends_the_connection(noise: bytes) -> None:
    """Noise becomes a ProtocolError, on which nats-py reconnects; anything else would leave it connected and deaf."""
    made, _, _ = parser()
    with pytest.raises(errors.ProtocolError):
        await made.parse(noise)


async def test_a_fault_of_nats_py_ends_the_connection() -> None:
    """Whatever a function of nats-py's raises is told, and leads to a reconnect: a read loop that ends is deaf."""
    made, stub, _ = parser()

    async def fail() -> None:
        raise asyncio.InvalidStateError

    stub._process_pong = fail  # type: ignore[method-assign]
    with pytest.raises(errors.ProtocolError):
        await made.parse(b"PONG\r\n")
    assert [type(fault) for fault in stub.faults] == [asyncio.InvalidStateError]


async def test_a_pong_that_nobody_waits_for_any_more_is_let_pass(nats_url: str) -> None:
    """A flush was given up before the server answered: the connection hears all the same, without a reconnect."""
    client = FastClient()
    await client.connect(nats_url)
    given_up: asyncio.Future[bool] = asyncio.Future()
    given_up.cancel()
    await client._send_ping(given_up)
    await client.flush()
    assert client.stats["reconnects"] == 0
    await client.close()


async def test_commands_reach_nats_py() -> None:
    """PONG, INFO and -ERR are given to nats-py's own functions."""
    made, stub, _ = parser()
    await made.parse(b"PONG\r\n+OK\r\nINFO {\"ldm\":true}\r\n-ERR 'Slow Consumer'\r\n")
    assert stub.commands == ["PONG", {"ldm": True}, "'Slow Consumer'"]


async def test_a_reset_drops_the_half_of_a_message() -> None:
    """After a reconnect the parser starts clean."""
    made, _, seen = parser()
    await made.parse(b"MSG a 1 10\r\nhalf")
    made.reset()
    await made.parse(wire((b"b", b"", b"x", None), 1))
    assert seen == [(b"b", b"", b"x", None)]


async def test_the_servers_complaint_leads_to_a_reconnect(bus: Bus) -> None:
    """A message over max_payload makes the server hang up; nats-py would close for good, ours reconnects."""
    again, got, client = Heard(), Heard(), bus._client
    await bus.subscribe("fast.complaint", lambda _s, _r, data, _h: got(data))
    bus.on_connect.append(again)
    bus.send(b"PUB fast.complaint 5000000\r\n")
    await again.until(1)
    bus.publish("fast.complaint", b"after")
    assert await got.until(1) == [b"after"]
    assert bus._client is client


async def test_all_sends_of_a_tick_leave_in_one_write(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred sends in one tick of the loop are one write to the socket, and a flush comes after them."""
    client = FastClient()
    await client.connect(nats_url)
    writer = client._writer()
    assert writer is not None
    writes: list[bytes] = []
    real = writer.write

    def write(data: bytes) -> None:
        writes.append(data)
        real(data)

    monkeypatch.setattr(writer, "write", write)
    for _ in range(100):
        client.send(b"PUB fast.write  1\r\nx\r\n")
    await client.flush()
    assert writes == [b"PUB fast.write  1\r\nx\r\n" * 100, b"PING\r\n"]
    await client.close()


async def test_an_attempt_whose_end_was_told_already_ends_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reconnect that is cancelled late ends the future of its successor, which is cancelled in turn: no error."""
    client, reached = FastClient(), asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(client, "_select_next_server", hang)
    client._current_server = object()  # type: ignore[assignment]  # it is never looked at
    attempt = asyncio.create_task(client._attempt_reconnect())
    await reached.wait()
    future = client._reconnection_task_future
    assert future is not None
    future.set_result(True)
    attempt.cancel()
    await attempt
