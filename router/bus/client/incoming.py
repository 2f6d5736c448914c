"""The protocol of a NATS connection: direct messages are handled in the callback in which their bytes arrive.

nats-py reads a connection in a task, which costs a future, a wake-up and a turn of the event loop for each read. This
protocol stands between the connection's transport and nats-py's stream once nats-py has logged in:

    transport ─▶ Incoming ─▶ FastParser.scan ─▶ functions of direct subscriptions
                    └─ from the first other item on ─▶ nats-py's stream ─▶ its read loop ─▶ FastParser.parse

- Order is kept: bytes that arrive while the read loop has unparsed ones wait here until it has parsed them.
- A turn of the event loop handles at most `MOST_AT_ONCE` direct messages. The rest waits for the next turn, so a flood
  stops neither timers nor writes. Above `_HELD_BYTES` the transport reads no more, and the server has to wait.
- At the end of a connection the waiting bytes go to nats-py's stream before its end does, so no message is lost.
- After a reset of the parser, or the end of the read loop, the connection's bytes are dropped.
"""

import asyncio

from router.bus.client.parser import MOST_AT_ONCE, FastParser

_HELD_BYTES = 64 << 10


class Incoming(asyncio.Protocol):
    """The protocol of one connection; see the module. `stream` is nats-py's own, of which `unparsed` bytes are left."""

    def __init__(
        self, parser: FastParser, transport: asyncio.Transport, stream: asyncio.StreamReaderProtocol, *, unparsed: int
    ) -> None:
        self._parser = parser
        self._transport = transport
        self._stream = stream
        self._unparsed = unparsed
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_scheduled = False
        self._is_paused = False
        self._reports: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take over the transport."""
        self._parser.incoming = self
        self._transport.set_protocol(self)

    def stop(self) -> None:
        """Drop everything that arrives from now on."""
        if self._parser.incoming is self:
            self._parser.incoming = None

    def data_received(self, data: bytes) -> None:
        """Handle the direct messages, or hold the data until its turn comes."""
        if self._parser.incoming is not self:
            return  # the connection is being closed
        if self._unparsed or self._is_scheduled:
            self._hold(data)
        else:
            self._handle(data)

    def parsed(self, size: int) -> None:
        """Note that nats-py's read loop has parsed so many bytes of its stream."""
        self._unparsed -= size
        if self._held and not self._unparsed:
            self._schedule()

    def eof_received(self) -> bool | None:
        """Give nats-py's stream what is held, and the end of the connection."""
        self._give_back()
        return self._stream.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give nats-py's stream what is held, and the loss of the connection."""
        self._give_back()
        self._stream.connection_lost(exc)

    def pause_writing(self) -> None:
        """Let the writers of nats-py's stream wait: the socket is full."""
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._stream.resume_writing()

    def _handle(self, data: bytes) -> None:
        parser = self._parser
        data = parser.joined(data)
        parser.left = MOST_AT_ONCE
        pos = parser.scan(data)
        fault = parser.fault
        if fault is not None:
            parser.fault = None
            report = asyncio.ensure_future(parser.nc._error_cb(fault))  # noqa: SLF001 - as the parser does
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)
        if pos == len(data):
            return
        rest = data[pos:]
        if fault is None and parser.left:  # at the front is a message or command for nats-py
            self._unparsed = len(rest)
            self._stream.data_received(rest)
        else:
            self._hold(rest)
            self._schedule()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES:
            self._is_paused = True
            self._transport.pause_reading()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        data = self._take()
        if data and self._parser.incoming is self:
            self._handle(data)
        if self._is_paused and self._held_bytes <= _HELD_BYTES:
            self._is_paused = False
            self._transport.resume_reading()

    def _take(self) -> bytes:
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes = [], 0
        return data

    def _give_back(self) -> None:
        data = self._take()
        if data and self._parser.incoming is self:
            self._unparsed += len(data)
            self._stream.data_received(data)
