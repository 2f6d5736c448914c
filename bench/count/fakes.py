"""NATS and Redis for a pod in the same process: no sockets, ready-made replies, the same calls in every run.

`FakeNetwork` stands in for `asyncio.open_connection`, so the pod's clients, protocols and parsers are the real ones.
The servers only cut and join bytes that were made beforehand, because their work is counted with the pod's.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
from msgspec import Struct

from router.domain.decide.decision import PinState, Reason
from router.store.scripts.layouts import ADMITTED

NATS_PORT, REDIS_PORT = 4222, 6379
STAMP = b"stamp..1"
_INFO = (
    b'INFO {"server_id":"FAKE","server_name":"fake","version":"2.12.0","proto":1,"headers":true,'
    b'"max_payload":4194304,"host":"127.0.0.1","port":4222,"client_id":1}\r\n'
)
_CHOSEN = b"\1"
_NOW_S = 1_800_000_000
# Turns of the event loop in which a pod reads, decodes and queues what has arrived: 64 messages in a turn.
_TURNS = 4
_TIMEOUT_S = 300


class Load(Struct):
    """Requests in chunks of NATS messages, one chunk for each call: the first chunk has one, the others `rows` each.

    `ahead`: a chunk arrives while the call before it is in flight, as under load. Otherwise it arrives when the replies
    to the chunk before it have left. `on_call` gets the number of each call, from 0 on, as the pod sends it. Rows have
    so many `candidates`, and find their pins if they have any.
    """

    rows: int
    ahead: bool
    chunks: list[bytes]
    on_call: Callable[[int], None]
    candidates: int = 4
    pins: bool = True


class FakeTransport(asyncio.Transport):
    """The client's end of a connection; what it writes goes to `on_write`."""

    def __init__(self, on_write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._on_write = on_write
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand the bytes over at once."""
        self._on_write(bytes(data))

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """Whether the connection was closed."""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give what arrives to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that gets what arrives."""
        return self._protocol

    def feed(self, data: bytes) -> None:
        """Let bytes arrive."""
        assert isinstance(self._protocol, asyncio.Protocol)
        self._protocol.data_received(data)

    def close(self) -> None:
        """Close the connection."""
        self._closing = True

    def abort(self) -> None:
        """Close the connection."""
        self._closing = True

    def pause_reading(self) -> None:
        """The reader is full. It keeps whatever else arrives."""

    def resume_reading(self) -> None:
        """The reader has room again."""


class FakeNetwork:
    """Both servers. A pod must have connected to both before the first `serve`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._nats: FakeTransport | None = None
        self._redis: FakeTransport | None = None
        self._commands = hiredis.Reader()
        self._replies: list[bytes] = []
        self._nonce = 0
        self._load: Load | None = None
        self._calls = self._sent = self._expected = self._replied = 0
        self._done = asyncio.Event()

    async def open_connection(
        self, host: str | None = None, port: int | None = None, *, limit: int = 1 << 16, **_: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the server on the port; a substitute for `asyncio.open_connection`."""
        reader = asyncio.StreamReader(limit=limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        if port == NATS_PORT:
            transport = self._nats = FakeTransport(self._nats_received)
            reader.feed_data(_INFO)
        else:
            transport = self._redis = FakeTransport(self._redis_received)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def serve(self, load: Load) -> None:
        """Send every request; return when the pod has answered all.

        :raises TimeoutError: a reply is missing.
        """
        self._load, self._calls, self._sent = load, 0, 0
        self._expected, self._replied = 1 + load.rows * (len(load.chunks) - 1), 0
        # The pod numbers its rows from 1 on.
        self._replies += [
            _admitted(nonce + 1, load) for nonce in range(len(self._replies), self._nonce + self._expected)
        ]
        self._done.clear()
        self._send_chunk(load)
        async with asyncio.timeout(_TIMEOUT_S):
            await self._done.wait()
        self._load = None

    def _send_chunk(self, load: Load) -> None:
        assert self._nats is not None
        if self._sent < len(load.chunks):
            self._loop.call_soon(self._nats.feed, load.chunks[self._sent])  # nothing arrives within a write
            self._sent += 1

    def _nats_received(self, data: bytes) -> None:
        load = self._load
        if load is None:
            assert self._nats is not None
            self._loop.call_soon(self._nats.feed, b"PONG\r\n" * data.count(b"PING\r\n"))
            return
        self._replied += data.count(b"PUB ")
        if self._replied == self._expected:
            self._done.set()
        elif not load.ahead and self._replied == 1 + load.rows * (self._sent - 1):
            self._send_chunk(load)

    def _redis_received(self, data: bytes) -> None:
        load = self._load
        if load is None:
            self._commands.feed(data)
            while command := self._commands.gets():
                self._reply(0, _setup_reply(command))
            return
        load.on_call(self._calls)
        # *<words> FCALL <function> <number of keys> <keys> <header> <rows>
        words = data.split(b"\r\n", 7)
        rows = int(words[0][1:]) - 4 - int(words[6])
        if rows != (load.rows if self._calls else 1):
            raise AssertionError(f"call {self._calls} has {rows} rows")
        self._calls += 1
        if load.ahead:
            self._send_chunk(load)
        now = self._loop.time()
        head = b"*%d\r\n:0\r\n:%d\r\n:%d\r\n" % (rows + 3, _NOW_S + int(now), now % 1 * 1e6)
        first, self._nonce = self._nonce, self._nonce + rows
        self._reply(_TURNS if load.ahead else 1, head + b"".join(self._replies[first : self._nonce]))

    def _reply(self, turns: int, reply: bytes) -> None:
        if turns:
            self._loop.call_soon(self._reply, turns - 1, reply)
        else:
            assert self._redis is not None
            self._redis.feed(reply)


def _admitted(nonce: int, load: Load) -> bytes:
    reason, pin = (Reason.STICKY, PinState.HELD) if load.pins else (Reason.WEIGHTED, PinState.NONE)
    verdicts = _CHOSEN + bytes(load.candidates - 1)
    reply = ADMITTED.head.pack(nonce, 0, STAMP, 0, reason.value, pin.value, 0, len(verdicts)) + verdicts
    return b"$%d\r\n%b\r\n" % (len(reply), reply)


def _setup_reply(command: list[bytes]) -> bytes:
    return b"*2\r\n$10\r\n%d\r\n$1\r\n0\r\n" % _NOW_S if command[0] == b"TIME" else b"+OK\r\n"
