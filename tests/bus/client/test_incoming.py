"""What happens to the bytes of a connection, in the turns of the event loop in which they arrive."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats import errors

from router.bus.client import incoming as incoming_module
from router.bus.client.connection import Bus
from router.bus.client.fast import FastClient
from router.bus.client.incoming import Incoming
from router.bus.client.options import BusOptions
from router.bus.client.parser import MOST_AT_ONCE, FastParser
from router.settings import Settings
from tests.bus.conftest import Heard
from tests.certificates import Authority
from tests.servers import NatsProcess

READ_BYTES = 32 << 10
"""What nats-py's read loop reads at once."""
WAIT_S = 30


def received(sid: int, reply: bytes, payload: bytes, block: bytes | None) -> tuple[bytes, object]:
    """Bytes of a message as the server sends it, and what it is handled with."""
    middle = b" %b" % reply if reply else b""
    if block is None:
        data = b"MSG a.b %d%b %d\r\n%b\r\n" % (sid, middle, len(payload), payload)
    else:
        sizes = len(block), len(block) + len(payload)
        data = b"HMSG a.b %d%b %d %d\r\n%b%b\r\n" % (sid, middle, *sizes, block, payload)
    return data, (b"a.b", reply, payload, block)


BLOCK = b"NATS/1.0\r\nname: x\r\n\r\n"
OTHERS: list[tuple[bytes, object]] = [
    (b"PING\r\n", "PING"),
    (b"PONG\r\n", "PONG"),
    (b'INFO {"ldm":true}\r\n', {"ldm": True}),
    (b"-ERR 'Permissions Violation'\r\n", "'Permissions Violation'"),
    received(2, b"", b"abc", None),
    received(2, b"_INBOX.y", b"hi", BLOCK),
]
"""Bytes of what nats-py handles, and what it is called with."""
DIRECT: list[tuple[bytes, object]] = [
    received(1, b"", b"", None),
    received(1, b"_INBOX.x", b"hello", None),
    received(1, b"", b"MSG a 1 2\r\nhi\r\nPING\r\n\r\n", None),
    received(1, b"", b"hi", BLOCK),
    received(1, b"r", b"", b"NATS/1.0\r\n\r\n"),
]
"""Bytes of messages of the direct subscription, and what its function is called with."""


class Transport(asyncio.Transport):
    """The socket of a connection; it notes whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Connection:
    """A connection with a direct subscription of id 1, whose other messages and commands are recorded, too."""

    def __init__(self) -> None:
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.handled = Heard()
        self.faults = Heard()
        self.ended = False
        self.go = asyncio.Event()
        self.go.set()
        self.parser = FastParser(self)  # type: ignore[arg-type]  # what the parser needs of a client
        self.parser.direct[b"1"] = self.handled
        self.transport = Transport()
        self.reader = asyncio.StreamReader(limit=READ_BYTES)
        self.stream = asyncio.StreamReaderProtocol(self.reader)
        self.stream.connection_made(self.transport)
        self.incoming = Incoming(self.parser, self.transport, self.stream, unparsed=0)
        self.incoming.start()
        self._task = asyncio.create_task(self.read_loop())

    async def read_loop(self) -> None:
        """As nats-py's, without its reconnects."""
        while not self.reader.at_eof():
            await self.parser.parse(await self.reader.read(READ_BYTES))
        self.ended = True

    async def end(self) -> None:
        """Wait for the read loop's end, by its own or now."""
        async with asyncio.timeout(WAIT_S):
            await self._task

    async def close(self) -> None:
        """End the read loop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _process_msg(self, _sid: int, *message: object) -> None:
        await self._other(message)

    async def _process_ping(self) -> None:
        await self._other("PING")

    async def _process_pong(self) -> None:
        await self._other("PONG")

    async def _process_info(self, info: dict[str, Any]) -> None:
        await self._other(info)

    async def _process_err(self, text: str) -> None:
        await self._other(text)

    async def _other(self, item: object) -> None:
        self.handled(item)
        await self.go.wait()

    async def _error_cb(self, error: Exception) -> None:
        self.faults(error)


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    """A connection whose read loop waits for data."""
    connection = Connection()
    await asyncio.sleep(0)
    yield connection
    await connection.close()


def message(number: int, size: int = 0) -> bytes:
    """A message of the direct subscription, with a number in its subject."""
    return b"MSG n.%d 1 %d\r\n%b\r\n" % (number, size, b"x" * size)


def numbers(connection: Connection) -> list[int]:
    """The numbers of the messages that were handled."""
    return [int(item[0][2:]) for item in connection.handled.items if isinstance(item, tuple) and item[0][:2] == b"n."]


def expected(items: list[tuple[bytes, object]]) -> list[object]:
    """What the items are handled with."""
    return [item for _, item in items]


def test_a_direct_message_is_handled_where_it_arrives() -> None:
    """No task is woken up and no turn of the event loop passes; messages before an incomplete one are handled, too."""

    async def run() -> None:
        connection = Connection()
        connection.incoming.data_received(message(1) + message(2) + message(3, 9)[:-4])
        assert numbers(connection) == [1, 2]
        connection.incoming.data_received(message(3, 9)[-4:])
        assert numbers(connection) == [1, 2, 3]
        assert connection.stats["in_msgs"] == 3
        await connection.close()

    asyncio.run(run())


async def test_a_cut_at_every_byte(connection: Connection) -> None:
    """Each message and command is handled once, whole and in order, wherever the bytes are cut in two."""
    items = [item for pair in zip(DIRECT, OTHERS, strict=False) for item in pair] + DIRECT
    data = b"".join(piece for piece, _ in items)
    for cut in range(1, len(data)):
        connection.handled.items.clear()
        connection.incoming.data_received(data[:cut])
        connection.incoming.data_received(data[cut:])
        await connection.handled.until(len(items), WAIT_S)
        assert connection.handled.items == expected(items), cut


async def test_byte_by_byte(connection: Connection) -> None:
    """As many pieces as bytes, with and without turns of the event loop between them."""
    items = DIRECT + OTHERS + DIRECT[::-1] + OTHERS[::-1] + DIRECT
    for turns in (0, 1):
        connection.handled.items.clear()
        for byte in b"".join(piece for piece, _ in items):
            connection.incoming.data_received(bytes([byte]))
            for _ in range(turns):
                await asyncio.sleep(0)
        await connection.handled.until(len(items), WAIT_S)
        assert connection.handled.items == expected(items)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(DIRECT * 4 + OTHERS), max_size=200),
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), max_size=30),
)
def test_any_pieces_in_any_turns(items: list[tuple[bytes, object]], cuts: list[tuple[int, int]]) -> None:
    """The order of arrival is kept, over both ways of handling, however many turns pass between the pieces."""

    async def run() -> None:
        connection = Connection()
        rest = b"".join(piece for piece, _ in items)
        for cut, turns in cuts:
            if rest:
                connection.incoming.data_received(rest[:cut])
            rest = rest[cut:]
            for _ in range(turns):
                await asyncio.sleep(0)
        if rest:
            connection.incoming.data_received(rest)
        connection.incoming.eof_received()
        await connection.end()
        assert connection.handled.items == expected(items)

    asyncio.run(run())


@pytest.mark.parametrize("front", [b"", b"PONG\r\n"], ids=["direct", "behind a command"])
async def test_a_flood_leaves_the_event_loop_its_turns(connection: Connection, front: bytes) -> None:
    """Between two turns of another callback, no more than a fixed number of messages is handled."""
    seen: list[int] = []
    loop = asyncio.get_running_loop()

    def look() -> None:
        seen.append(len(connection.handled.items))
        if len(connection.handled.items) < 5_000:
            loop.call_soon(look)

    look()
    chunk = b"".join(message(number, 100) for number in range(1_000))  # read by nats-py in several pieces
    connection.incoming.data_received(front + chunk)
    for _ in range(4):  # further reads while the first is not handled yet
        connection.incoming.data_received(chunk)
    await connection.handled.until(5_000 + bool(front), WAIT_S)
    assert numbers(connection) == [*range(1_000)] * 5
    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) <= MOST_AT_ONCE + 1


async def test_a_timer_fires_in_a_flood_that_never_ends(connection: Connection) -> None:
    """Each turn brings more messages than it handles: timers fire all the same, and the server is made to wait."""
    loop = asyncio.get_running_loop()
    fired = loop.create_future()
    loop.call_later(0.01, fired.set_result, None)
    chunk = message(1, 400) * 500

    def read() -> None:
        if connection.transport.reads:
            connection.incoming.data_received(chunk)
        if not fired.done():
            loop.call_soon(read)

    read()
    async with asyncio.timeout(WAIT_S):
        await fired
    assert connection.handled.items


async def test_the_server_waits_while_too_much_is_held(connection: Connection) -> None:
    """The transport reads no more above the bound, and again below it."""
    chunk = message(1, 1_000) * 500
    connection.incoming.data_received(chunk)
    assert not connection.transport.reads
    await connection.handled.until(500, WAIT_S)
    await asyncio.sleep(0)
    assert connection.transport.reads


async def test_the_server_waits_while_nats_py_does(connection: Connection) -> None:
    """Messages behind a command are handled when nats-py has handled it; what arrives meanwhile is bounded."""
    connection.go.clear()
    connection.incoming.data_received(message(1) + b"PING\r\n" + message(2))
    connection.incoming.data_received(message(3, 100_000))
    assert not connection.transport.reads
    for _ in range(10):
        await asyncio.sleep(0)
    assert connection.handled.items == [(b"n.1", b"", b"", None), "PING"]
    connection.go.set()
    await connection.handled.until(4, WAIT_S)
    assert numbers(connection) == [1, 2, 3]
    await asyncio.sleep(0)
    assert connection.transport.reads


@pytest.mark.parametrize("sid", [1, 2], ids=["direct", "of nats-py"])
async def test_a_huge_message_is_read_to_its_end(connection: Connection, sid: int) -> None:
    """Its pieces pause nothing: the transport must read on to complete it."""
    payload = bytes(range(256)) * (16 << 10)
    data = b"MSG a %d %d\r\n%b\r\nMSG n.1 1 0\r\n\r\n" % (sid, len(payload), payload)
    for start in range(0, len(data), 256 << 10):
        assert connection.transport.reads
        connection.incoming.data_received(data[start : start + (256 << 10)])
    await connection.handled.until(2, WAIT_S)
    assert connection.handled.items == [(b"a", b"", payload, None), (b"n.1", b"", b"", None)]


@pytest.mark.parametrize("lost", [None, "closed", "half closed"])
async def test_the_end_of_a_connection_loses_nothing(connection: Connection, lost: str | None) -> None:
    """What waits for its turn is handled before nats-py sees the end."""
    connection.incoming.data_received(b"".join(message(number) for number in range(500)))
    if lost == "half closed":
        connection.incoming.data_received(b"PING\r\n" + message(500))
    else:
        connection.incoming.data_received(message(500))
    if lost != "closed":
        connection.incoming.eof_received()
    connection.incoming.connection_lost(None)
    await connection.end()
    assert connection.ended
    assert numbers(connection) == [*range(501)]


async def test_an_error_of_a_function_is_reported(connection: Connection) -> None:
    """Messages before and behind it are handled; nats-py's callback gets the error."""

    def fail(subject: bytes, *_: object) -> None:
        if subject in (b"n.1", b"n.3"):
            raise KeyError(subject)
        connection.handled(subject, b"")

    connection.parser.direct[b"1"] = fail
    connection.incoming.data_received(b"".join(message(number) for number in range(4)))
    connection.incoming.data_received(message(4))
    await connection.handled.until(3, WAIT_S)
    faults = await connection.faults.until(2, WAIT_S)
    assert numbers(connection) == [0, 2, 4]
    assert [str(fault) for fault in faults] == ["b'n.1'", "b'n.3'"]


@pytest.mark.parametrize("before", [0, 1, 500])
@pytest.mark.parametrize("end", ["reset", "stop"])
async def test_a_closed_connection_calls_no_function(connection: Connection, end: str, before: int) -> None:
    """Neither with what waits for its turn nor with what still arrives."""
    connection.incoming.data_received(b"".join(message(number) for number in range(before)))
    handled = len(connection.handled.items)
    if end == "reset":
        connection.parser.reset()
    else:
        connection.incoming.stop()
    connection.incoming.data_received(message(1) + b"PING\r\n" + message(2))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(connection.handled.items) == handled


@pytest.mark.parametrize(
    "noise",
    [
        b"HELLO\r\n",
        b"MSG a\r\n",
        b"MSG a 1 x\r\n",
        b"INFO {\r\n",
        b"HMSG a 1 b x 3\r\nabc\r\n",
        b"MSG a 1 999999999\r\n",
    ],
)
async def test_noise_ends_the_read_loop(connection: Connection, noise: bytes) -> None:
    """What is not NATS is given to the parser of nats-py's read loop, which reconnects; messages before it count."""
    connection.incoming.data_received(message(1) + noise + message(2))
    with pytest.raises(errors.ProtocolError):
        await connection.end()
    assert numbers(connection) == [1]


async def test_writers_wait_while_the_socket_is_full(connection: Connection) -> None:
    """nats-py's stream still learns from the transport that it is full."""
    loop = asyncio.get_running_loop()
    writer = asyncio.StreamWriter(connection.transport, connection.stream, connection.reader, loop)
    connection.incoming.pause_writing()
    drained = asyncio.create_task(writer.drain())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not drained.done()
    connection.incoming.resume_writing()
    await asyncio.wait_for(drained, WAIT_S)
    writer.close()


async def test_what_comes_with_the_login_is_not_lost() -> None:
    """Bytes behind the PONG of the login are in nats-py's stream already; they are handled first."""
    info = json.dumps({"server_id": "FAKE", "version": "2.11.0", "headers": True, "max_payload": 1 << 20})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(b"INFO %b\r\n" % info.encode())
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n" + message(1) + b"PING\r\n" + message(2, 9)[:-5])
            await reader.readuntil(b"PONG\r\n")
            writer.write(message(2, 9)[-5:] + message(3))
            await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client, handled = FastClient(), asyncio.Queue[bytes]()
    client._parser.direct[b"1"] = lambda subject, *_: handled.put_nowait(subject)
    await client.connect(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", allow_reconnect=False)
    async with asyncio.timeout(WAIT_S):
        assert [await handled.get() for _ in range(3)] == [b"n.1", b"n.2", b"n.3"]
    await client.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
async def test_a_flood_of_a_real_server(
    encrypted: bool, servers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every message comes once and in order, huge ones included, though the transport is paused all the time."""
    monkeypatch.setattr(incoming_module, "MOST_AT_ONCE", 4)
    monkeypatch.setattr(incoming_module, "_HELD_BYTES", 0)
    extra, tls_ca = "", None
    if encrypted:
        authority = Authority(tmp_path)
        certificate = authority.issue("server")
        extra, tls_ca = f"tls {{ cert_file: '{certificate.cert}', key_file: '{certificate.key}' }}", str(authority.ca)
    server = await asyncio.to_thread(NatsProcess(tmp_path / "data", extra=extra).start)
    options = BusOptions((server.url,), tls_ca=tls_ca)
    receiver, sender, handled, pauses = Bus(options), Bus(options), Heard(), Heard()
    try:
        for bus in (receiver, sender):
            await bus.start()
            assert await bus.wait_connected(WAIT_S)
        await receiver.subscribe("flood", lambda _s, _r, data, _h: handled((int(data[:6]), len(data))))
        assert receiver._client is not None
        incoming = receiver._client._parser.incoming
        assert incoming is not None
        pause = incoming._transport.pause_reading
        incoming._transport.pause_reading = lambda: (pause(), pauses())  # type: ignore[assignment,func-returns-value,method-assign]
        sizes = [700_000 if number % 500 == 250 else 6 + number % 1_000 for number in range(3_000)]
        for number, size in enumerate(sizes):
            sender.publish("flood", (b"%06d" % number).ljust(size))
            if number % 1_000 == 0:
                await receiver.flush(WAIT_S)
        assert await handled.until(len(sizes), WAIT_S) == list(enumerate(sizes))
        assert pauses.items
    finally:
        await receiver.close()
        await sender.close()
        await asyncio.to_thread(server.stop)


def test_a_pod_reads_faster_than_it_decides() -> None:
    """A call takes two turns of the loop at least. Else a flood waits in the socket, where nobody can refuse it."""
    assert Settings().batch_max_rows <= MOST_AT_ONCE
