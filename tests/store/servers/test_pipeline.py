"""Replies on a connection that redis-py has made: in any pieces, broken, late, cut off, and of a server that reads
nothing.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, MovedError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from router.errors import OutcomeUnknown, StoreUnavailable
from router.store.servers.endpoints import HostUnknownError, NodeConnection
from router.store.servers.link import Link
from router.store.servers.options import connection_factory
from router.store.servers.pipeline import Pipeline
from tests.fleet.harness import until
from tests.servers import ValkeyProcess

ROUND = b"*5\r\n:0\r\n:1800000000\r\n:12\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n"
DECODED = [0, 1_800_000_000, 12, b"a\r\nbc", b""]


class Transport:
    """The client's end of a connection: what was written, and how it ended."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.unread = 0
        self.ended: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who hears of bytes."""
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket did not take."""
        return self.unread

    def abort(self) -> None:
        """End at once."""
        self.ended.append("abort")

    def close(self) -> None:
        """End when everything is written."""
        self.ended.append("close")


class Told:
    """A receiver that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def received(self, replies: list[Any]) -> None:
        """Keep it."""
        self.told.append(replies)

    def lost(self, fault: OutcomeUnknown) -> None:
        """Keep its words."""
        self.told.append(str(fault))


def over(transport: Transport, timeout_s: float = 60, kind: type[AbstractConnection] | None = None) -> Pipeline:
    """A pipeline over a transport, as after a handshake."""
    connection: Any = kind(host="answered.example") if kind else SimpleNamespace()  # type: ignore[call-arg]
    connection._reader = asyncio.StreamReader()
    connection._writer = SimpleNamespace(transport=transport, close=transport.close)
    connection._close = transport.close
    made = Pipeline(cast(AbstractConnection, connection), timeout_s)
    connection._writer = None
    return made


# Pieces


@pytest.mark.parametrize("at", range(1, len(ROUND)))
async def test_a_reply_in_two_pieces(at: int) -> None:
    """Cut at every byte, it is one reply, and is reported once, when all of it is there."""
    pipeline, told = over(Transport()), Told()
    pipeline.send(b"ask", 1, told)
    pipeline.data_received(ROUND[:at])
    assert told.told == []
    pipeline.data_received(ROUND[at:])
    assert told.told == [[DECODED]]


async def test_replies_byte_by_byte() -> None:
    """The worst network: three replies of two pipelines."""
    pipeline, first, second = over(Transport()), Told(), Told()
    pipeline.send(b"ask", 2, first)
    for byte in ROUND + b"+OK\r\n":
        pipeline.data_received(bytes([byte]))
    assert first.told == [[DECODED, b"OK"]]
    pipeline.send(b"again", 1, second)
    for byte in b"$-1\r\n":
        pipeline.data_received(bytes([byte]))
    assert second.told == [[None]]
    assert first.told == [[DECODED, b"OK"]]


async def test_many_replies_in_one_piece() -> None:
    """They are in order, errors among them as values."""
    pipeline, told = over(Transport()), Told()
    pipeline.send(b"ask", 4, told)
    pipeline.data_received(b":1\r\n-ERR no\r\n" + ROUND + b"+OK\r\n")
    ((one, error, reply, ok),) = told.told
    assert (one, reply, ok) == (1, DECODED, b"OK")
    assert isinstance(error, ResponseError)
    assert str(error) == "no"


async def test_the_next_pipeline_is_sent_from_the_reply() -> None:
    """A receiver may send at once, while it is told; each gets its own replies."""
    transport = Transport()
    pipeline = over(transport)
    second = Told()

    class First(Told):
        def received(self, replies: list[Any]) -> None:
            super().received(replies)
            pipeline.send(b"second", 1, second)

    first = First()
    pipeline.send(b"first", 1, first)
    pipeline.data_received(b":1\r\n")
    pipeline.data_received(b":2\r\n")
    assert (first.told, second.told) == ([[1]], [[2]])
    assert transport.written == [b"first", b"second"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script.", NoScriptError),
        ("READONLY You can't write against a read only replica.", ReadOnlyError),
        ("MOVED 7 10.0.0.1:7001", MovedError),
        ("ASK 7 10.0.0.1:7001", AskError),
        ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", ResponseError),
    ],
)
async def test_errors_are_redis_pys(text: str, kind: type[Exception]) -> None:
    """So that callers can tell them apart."""
    pipeline, told = over(Transport()), Told()
    pipeline.send(b"ask", 1, told)
    pipeline.data_received(b"-%b\r\n" % text.encode())
    ((error,),) = told.told
    assert type(error) is kind


@pytest.mark.parametrize(
    ("text", "host"), [("MOVED 7 :7001", "answered.example"), ("ASK 7 :7001", "answered.example"), ("ASK 7 ?:1", None)]
)
async def test_a_node_that_names_no_host(text: str, host: str | None) -> None:
    """Its own host is meant; `?` is a host that nobody knows."""
    pipeline, told = over(Transport(), kind=NodeConnection), Told()
    pipeline.send(b"ask", 1, told)
    pipeline.data_received(b"-%b\r\n" % text.encode())
    ((error,),) = told.told
    if host is None:
        assert isinstance(error, HostUnknownError)
    else:
        assert isinstance(error, AskError)
        assert (error.host, error.port) == (host, 7001)


# Faults


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello\r\n", "an unreadable reply"),
        (b"*x\r\n", "an unreadable reply"),
        (b"$-7\r\n", "an unreadable reply"),
        (b":1x\r\n", "an unreadable reply"),
        (b"-MOVED x\r\n", "an unreadable reply"),
        (b"\x16\x03\x01\x02\x00", "an unreadable reply"),
        (b":1\r\n:2\r\n", "a reply to no command"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading the dataset"),
        (b"-NOAUTH Authentication required.\r\n", "Authentication required"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
    ],
)
async def test_what_is_no_reply_ends_the_connection(data: bytes, words: str) -> None:
    """The user of the pipeline hears it once; what comes behind has no reader."""
    transport = Transport()
    pipeline, told = over(transport), Told()
    pipeline.send(b"ask", 1, told)
    pipeline.data_received(data)
    assert len(told.told) == 1
    assert words in told.told[0]
    assert pipeline.closed
    assert transport.ended == ["close"]
    pipeline.connection_lost(None)
    assert len(told.told) == 1


@pytest.mark.parametrize("data", [b"+OK\r\n", b"$9\r\nhalf", b"\0"])
async def test_a_reply_to_no_command_ends_the_connection(data: bytes) -> None:
    """The next pipeline would take it for its own."""
    pipeline = over(Transport())
    pipeline.data_received(data)
    assert pipeline.closed


@pytest.mark.parametrize("before", [b"", ROUND[:9], ROUND, ROUND + b":1"])
@pytest.mark.parametrize("cause", [None, ConnectionResetError(104, "Connection reset by peer")])
async def test_a_connection_that_ends_inside_a_reply(before: bytes, cause: Exception | None) -> None:
    """Whatever had come: not all replies are there, so nobody can say what was executed."""
    pipeline, told = over(Transport()), Told()
    pipeline.send(b"ask", 2, told)
    pipeline.data_received(before)
    if cause is None:
        assert not pipeline.eof_received()  # the transport closes itself
    pipeline.connection_lost(cause)
    assert told.told == ["Redis: " + ("Connection closed by server." if cause is None else str(cause))]
    assert pipeline.closed


async def test_closing_reports_the_pipeline_in_flight() -> None:
    """Once; an idle connection has nothing to report."""
    pipeline, told = over(Transport()), Told()
    pipeline.send(b"ask", 1, told)
    pipeline.close("a reason")
    pipeline.close()
    assert told.told == ["Redis: a reason"]
    idle, told = over(Transport()), Told()
    idle.send(b"ask", 1, told)
    idle.data_received(b":1\r\n")
    idle.close()
    assert told.told == [[1]]


async def test_unread_bytes_are_dropped_with_the_connection() -> None:
    """A server that thaws must not read the rest of a call that was given up."""
    transport = Transport()
    pipeline = over(transport)
    pipeline.send(b"ask", 1, Told())
    transport.unread = 3
    pipeline.close()
    assert transport.ended == ["abort", "close"]


# Time


class Times:
    """A loop's clock and timers, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 10.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_at", self._at)

    def _at(self, due: float, call: Callable[[], None]) -> Any:
        entry = (due, call)
        self.timers.append(entry)
        return SimpleNamespace(cancel=lambda: self.timers.remove(entry))

    def run(self, until: float) -> None:
        """Every timer up to a moment."""
        while self.timers and self.timers[0][0] <= until:
            self.now, call = self.timers.pop(0)
            call()
        self.now = until


@pytest.mark.parametrize(("unread", "words"), [(0, "no reply in time"), (5, "nothing was read in time")])
async def test_a_reply_that_does_not_come(monkeypatch: pytest.MonkeyPatch, unread: int, words: str) -> None:
    """The connection is given up after the timeout, not before; a half reply does not help."""
    times, transport = Times(monkeypatch), Transport()
    pipeline, told = over(transport, timeout_s=1), Told()
    transport.unread = unread
    pipeline.send(b"ask", 1, told)
    pipeline.data_received(ROUND[:7])
    times.run(10.99)
    assert told.told == []
    times.run(11.01)
    assert told.told == [f"Redis: {words}"]
    assert times.timers == []
    monkeypatch.undo()


async def test_each_pipeline_has_the_whole_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered pipelines leave their timer to the next one, which counts from its own start."""
    times = Times(monkeypatch)
    pipeline, told = over(Transport(), timeout_s=1), Told()
    for n in range(20):
        pipeline.send(b"ask", 1, told)
        assert len(times.timers) == 1
        times.run(10.0 + 0.1 * (n + 1))
        pipeline.data_received(b":1\r\n")
    assert told.told == [[1]] * 20
    pipeline.send(b"ask", 1, told)
    times.run(12.99)
    assert told.told == [[1]] * 20
    times.run(13.0)
    assert told.told[20:] == ["Redis: no reply in time"]
    monkeypatch.undo()


async def test_an_idle_connection_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer of the last pipeline is the last; closing takes it off."""
    times = Times(monkeypatch)
    pipeline, told = over(Transport(), timeout_s=1), Told()
    pipeline.send(b"ask", 1, told)
    pipeline.data_received(b":1\r\n")
    times.run(20.0)
    assert times.timers == []
    assert not pipeline.closed
    pipeline.send(b"ask", 1, told)
    pipeline.close()
    assert times.timers == []
    monkeypatch.undo()


async def test_a_large_write_has_time_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport pauses while the server reads slowly; the reply's time starts when most of it is read."""
    times = Times(monkeypatch)
    pipeline, told = over(Transport(), timeout_s=1), Told()
    pipeline.send(b"large", 1, told)
    pipeline.pause_writing()
    times.run(10.9)
    pipeline.resume_writing()
    times.run(11.8)
    assert told.told == []
    times.run(11.95)
    assert told.told == ["Redis: no reply in time"]
    monkeypatch.undo()


# On real sockets


async def serve(sent: list[bytes | None]) -> tuple[asyncio.Server, int]:
    """A server that answers the handshake, and then sends these parts, each after a read and byte by byte. None: it
    ends the connection.
    """

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = b""
        while b"LIB-VER" not in heard:
            heard += await reader.read(1 << 16)
        writer.write(b"+OK\r\n" * 2)
        for part in sent:
            if part is None or not await reader.read(1 << 16):
                break
            for byte in part:
                writer.write(bytes([byte]))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([b"$20\r\nhalf a rep", None], "Connection closed by server"),
        ([b"", None], "Connection closed by server"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n", None], "an unreadable reply"),
    ],
)
async def test_a_server_that_breaks_off(sent: list[bytes | None], words: str) -> None:
    """Of the whole way, with redis-py's handshake: the fault comes out of `ask`, and the next one connects again."""
    server, port = await serve(sent)
    link = Link(connection_factory(f"redis://127.0.0.1:{port}"), 30)
    async with server:
        for _ in range(2):
            with pytest.raises(OutcomeUnknown, match=words):
                await asyncio.wait_for(link.ask([("GET", "x")]), 30)
            assert link.pipeline() is None


async def test_a_server_that_ends_with_its_handshake() -> None:
    """Nothing was sent yet."""
    server, port = await serve([None])
    link = Link(connection_factory(f"redis://127.0.0.1:{port}"), 30)
    async with server:
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            await asyncio.wait_for(link.ask([("GET", "x")]), 30)
        link.close()


async def test_a_large_pipeline_over_a_slow_network(servers: None, tmp_path: Path) -> None:
    """More than socket and transport hold, in both ways: every byte arrives, in order."""
    with ValkeyProcess(tmp_path) as server:
        link = Link(connection_factory(server.url), 30)
        values = [bytes([n]) * (1 << 20) for n in range(8)]
        replies = await asyncio.wait_for(link.ask([("ECHO", value) for value in values]), 30)
        assert replies == values
        link.close()


async def test_a_connection_that_ended_while_idle_is_replaced(servers: None, tmp_path: Path) -> None:
    """No pipeline is lost with it: the next one connects first."""
    with ValkeyProcess(tmp_path) as server:
        link = Link(connection_factory(server.url), 30)
        (number,) = await link.ask([("CLIENT", "ID")])
        other = Link(connection_factory(server.url), 30)
        await other.ask([("CLIENT", "KILL", "ID", number)])
        await until(lambda: link.pipeline() is None, 30, "the end of the connection")
        (again,) = await link.ask([("CLIENT", "ID")])
        assert again != number
        link.close()
        other.close()


async def test_closing_a_link_ends_who_waits(servers: None, tmp_path: Path) -> None:
    """Its replies will not come."""
    with ValkeyProcess(tmp_path) as server:
        link = Link(connection_factory(server.url), 30)
        await link.ask([("PING",)])
        waiting = asyncio.create_task(link.ask([("BLPOP", "nothing", 0)]))
        await asyncio.sleep(0)
        link.close()
        with pytest.raises(OutcomeUnknown, match="the connection was closed"):
            await asyncio.wait_for(waiting, 30)
