"""The parser of what a NATS server sends, in place of nats-py's.

It scans a chunk with `bytes.find` and calls a plain function with each message of a *direct* subscription, in the order
of arrival. All other messages and commands go to nats-py. `scan` is synchronous, for the connection's protocol
(`router.bus.client.incoming`). `parse` is what nats-py's read loop calls: it handles whatever `scan` stops at.
"""
# ruff: noqa: SLF001 - this module uses private names of nats-py

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from nats import errors
from nats.protocol.parser import Parser

if TYPE_CHECKING:
    from router.bus.client.fast import FastClient
    from router.bus.client.incoming import Incoming

Direct = Callable[[bytes, bytes, bytes, bytes | None], None]
"""`(subject, reply or b"", payload, raw header block or None)`; called by the event loop, so it must not block."""

MOST_AT_ONCE = 256
"""Direct messages in one turn of the event loop; then timers run, and queued commands are written.

As many as a call of the store decides at most (ROUTER_BATCH_MAX_ROWS), and a call takes two turns at least: a pod must
read faster than it decides. Otherwise requests wait in its socket, where nobody sheds them: with 64, a flood delayed
all callers by a second or two.
"""
_CRLF = b"\r\n"
_M, _H = b"MH"
_MAX_MESSAGE_BYTES = 128 << 20  # twice the largest setting of a server; more is not NATS


class FastParser(Parser):
    """The replacement of nats-py's parser; see the module.

    `left`: how many direct messages the scans of this turn may still handle. `fault`: what the function of the last
    message raised. `incoming`: the protocol of the present connection, if it calls `scan`.
    """

    def __init__(self, client: "FastClient") -> None:
        self.direct: dict[bytes, Direct] = {}
        self.left = MOST_AT_ONCE
        self._resets = 0
        super().__init__(client)

    def reset(self) -> None:
        """Forget the connection, which is closed, and its incomplete message."""
        super().reset()
        self._resets += 1
        self.incoming: Incoming | None = None
        self.fault: Exception | None = None
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def joined(self, data: bytes) -> bytes:
        """Return the data behind the incomplete message that came before it; empty: that is still incomplete."""
        if not self._chunks:
            return data
        self._chunks.append(data)  # joined only when the message is complete: a payload of 4 MiB comes in many chunks
        self._have += len(data)
        if self._have < self._need:
            return b""
        data = b"".join(self._chunks)
        self._chunks = []
        return data

    def scan(self, data: bytes, pos: int = 0) -> int:
        """Handle direct messages from a position on; return the position of the first byte that is not handled.

        It stops at the end, of which it keeps an incomplete message; when `left` is 0; behind a message whose function
        set `fault`; or at something else, which may be invalid.
        """
        end, first, left = len(data), pos, self.left
        direct_of, find = self.direct.get, data.find
        while pos < end and left:
            kind = data[pos]
            if kind not in b"MH":
                break
            eol = find(_CRLF, pos)
            if eol < 0:
                break
            line = data[pos:eol].split()
            body = eol + 2
            try:
                direct = direct_of(line[2])
                stop = body + int(line[-1])
                cut = body if kind == _M else body + int(line[-2])
            except (IndexError, ValueError):
                break
            if direct is None or stop + 2 > end:
                break
            pos = stop + 2
            left -= 1
            try:
                if kind == _M:
                    direct(line[1], line[3] if len(line) == 5 else b"", data[body:stop], None)
                else:
                    direct(line[1], line[3] if len(line) == 6 else b"", data[cut:stop], data[body:cut])
            except Exception as error:  # an error in one message must not end the connection
                self.fault = error
                break
        if handled := self.left - left:
            self.left = left
            self.nc.stats["in_msgs"] += handled
            self.nc.stats["in_bytes"] += pos - first
        if pos < end and (need := _bytes_needed(data, pos)):
            self._chunks = [data[pos:]]
            self._have, self._need = end - pos, need
            return end
        return pos

    async def parse(self, data: bytes = b"") -> None:
        """Handle all complete messages and commands in what nats-py's read loop has read.

        :raises nats.errors.ProtocolError: the data is not NATS; nats-py then reconnects.
        """
        incoming = self.incoming
        try:
            await self._handle(self.joined(data))
        except (errors.ProtocolError, OSError):
            raise
        except Exception as error:  # report it, and reconnect: nats-py's read loop would end in silence
            await self.nc._error_cb(error)
            raise errors.ProtocolError from error
        if incoming is not None:
            incoming.parsed(len(data))

    async def _handle(self, data: bytes) -> None:
        pos, end, resets = 0, len(data), self._resets
        while pos < end and self._resets == resets:  # after a reset, the rest came from a closed connection
            pos = self.scan(data, pos)
            if (fault := self.fault) is not None:
                self.fault = None
                await self.nc._error_cb(fault)
            elif not self.left:
                await asyncio.sleep(0)
                self.left = MOST_AT_ONCE
            elif pos < end:
                pos = await self._other(data, pos)

    async def _other(self, data: bytes, pos: int) -> int:
        """Give nats-py the message or command at a position; return the position behind it."""
        eol = data.find(_CRLF, pos)
        if eol < 0:
            raise errors.ProtocolError
        body = eol + 2
        if (kind := data[pos]) not in b"MH":
            await self._command(data[pos:eol])
            return body
        line = data[pos:eol].split()
        stop = body + int(line[-1])
        if stop + 2 > len(data):
            raise errors.ProtocolError
        if kind == _M:
            reply, payload, block = line[3] if len(line) == 5 else b"", data[body:stop], None
        else:
            cut = body + int(line[-2])
            reply, payload, block = line[3] if len(line) == 6 else b"", data[cut:stop], data[body:cut]
        await self.nc._process_msg(int(line[2]), line[1], reply, payload, block)
        return stop + 2

    async def _command(self, line: bytes) -> None:
        """Handle a protocol line that is not a message; rare."""
        if line.startswith(b"PING"):
            await self.nc._process_ping()
        elif line.startswith(b"PONG"):
            await self.nc._process_pong()
        elif line.startswith(b"INFO"):
            await self.nc._process_info(json.loads(line[4:]))
        elif line.startswith(b"-ERR"):
            await self.nc._process_err(line[4:].strip().decode(errors="replace"))
        elif not line.startswith(b"+OK"):
            raise errors.ProtocolError


def _bytes_needed(data: bytes, pos: int) -> int:
    """How long the incomplete message or command at a position is at least; 0: it is complete, or is not NATS."""
    eol = data.find(_CRLF, pos)
    if eol < 0:
        needed = len(data) - pos + 1
    elif data[pos] in b"MH" and (size := data[pos:eol].split()[-1]).isdigit():
        needed = eol + 2 + int(size) + 2 - pos
    else:
        return 0
    return needed if len(data) - pos < needed <= _MAX_MESSAGE_BYTES else 0
