"""The one place that knows the insides of nats-py: a client whose hot path has no task, queue or future per message.

What it changes, and nothing else:

- `FastParser` reads a whole chunk with `bytes.find` and hands messages of *direct* subscriptions to a plain function,
  in the order of arrival, inside the read loop. All other messages and commands go to nats-py as before.
- `send` appends a command to nats-py's own outgoing list and asks for one flush per tick of the event loop, so what is
  sent in one tick is one write. Order is kept, and what is unsent at a disconnect goes out after the reconnect.
- A flush covers what was queued before it.
- A reconnect that was cancelled late ends without an unhandled error.
- A PONG that comes after its flush was given up is let pass; nats-py's read loop ends on it, connected and deaf.
- An `-ERR` of the server never closes the client for good: nats-py gives up on all but two kinds, a pod must not.

CPU of the receiving process per request, receive and a 411-byte reply with one header, Python 3.11, one closed-loop
client, the same machine (µs). The door is `DecideDoor`, all in:

    ================================  =====  =====  =====
    outstanding                           1     32    256
    ================================  =====  =====  =====
    nats-py, request without headers     62    8.6    6.6
    nats-py, with two headers            69   11.3    9.1
    this client, without headers         36    3.0    1.8
    this client, with two headers        44    4.4    2.7
    the door, without headers            31    3.1    2.3
    the door, with two headers           30    4.4    3.5
    ================================  =====  =====  =====

`router.bus.nats_py` lists the functions of nats-py that this module relies on, and refuses a nats-py where they differ.
"""
# ruff: noqa: SLF001 - private names of nats-py are what this module is for

import asyncio
import contextlib
import json
from collections.abc import Callable

from nats import errors
from nats.aio.client import Client
from nats.protocol.parser import PERMISSIONS_ERR, Parser

Direct = Callable[[bytes, bytes, bytes, bytes | None], None]
"""`(subject, reply or b"", payload, raw header block or None)`; called in the read loop: it must not block."""

_CRLF = b"\r\n"
_M, _H = b"MH"
_MAX_MESSAGE = 128 << 20  # twice what a server can be set to; more is not NATS
_YIELD_AFTER = 64  # messages: then the rest of the loop gets its turn, and what they queued is flushed
_FLUSH_S = 5
_SOCKET_FULL = 8 << 20
_SOCKET_RETRY_S = 0.01


class FastParser(Parser):
    """Takes the place of nats-py's parser; see the module."""

    def __init__(self, client: "FastClient") -> None:
        self.direct: dict[bytes, Direct] = {}
        super().__init__(client)

    def reset(self) -> None:
        """Forget a half-read message: the connection it came from is gone."""
        super().reset()
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        """Handle all complete messages in what was read so far.

        :raises nats.errors.ProtocolError: this is not NATS; nats-py then reconnects.
        """
        if self._chunks:  # joined once the message is complete: a payload of 4 MiB comes in 128 pieces
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks = []
        try:
            handled = await self._scan(data)
        except (errors.ProtocolError, OSError):
            raise
        except Exception as error:  # else nats-py's read loop would end, connected and deaf; it is told
            await self.nc._error_cb(error)
            raise errors.ProtocolError from error
        if handled:
            self.nc.stats["in_msgs"] += handled
            self.nc.stats["in_bytes"] += len(data)
            if handled >= _YIELD_AFTER:
                await asyncio.sleep(0)

    async def _scan(self, data: bytes) -> int:  # noqa: PLR0912 - one loop: a call per message is a tenth of it
        """Returns how many messages went to direct subscriptions; keeps an incomplete rest."""
        generation = self._chunks
        pos, end, handled, need = 0, len(data), 0, 0
        while pos < end:
            eol = data.find(_CRLF, pos)
            if eol < 0:
                need = end - pos + 1
                break
            kind = data[pos]
            if kind in b"MH":
                line = data[pos:eol].split()
                body = eol + 2
                sid = line[2]
                stop = body + int(line[-1])
                if stop + 2 > end:
                    need = stop + 2 - pos
                    break
                pos = stop + 2
                if kind == _M:
                    reply = line[3] if len(line) == 5 else b""
                    payload, head = data[body:stop], None
                else:
                    reply = line[3] if len(line) == 6 else b""
                    cut = body + int(line[-2])
                    payload, head = data[cut:stop], data[body:cut]
                direct = self.direct.get(sid)
                if direct is None:
                    await self.nc._process_msg(int(sid), line[1], reply, payload, head)
                else:
                    handled += 1
                    try:
                        direct(line[1], reply, payload, head)
                    except Exception as error:  # a fault in one message must not end the read loop
                        await self.nc._error_cb(error)
            else:
                command = data[pos:eol]
                pos = eol + 2
                await self._command(command)
            if self._chunks is not generation:
                return handled  # reset while we waited: the rest came from a connection that is gone
        if pos < end:
            if need > _MAX_MESSAGE:
                raise errors.ProtocolError
            self._chunks = [data[pos:]]
            self._have, self._need = end - pos, need
        return handled

    async def _command(self, line: bytes) -> None:
        """Everything that is not a message; rare."""
        if line.startswith(b"PING"):
            await self.nc._process_ping()
        elif line.startswith(b"PONG"):
            await self.nc._process_pong()
        elif line.startswith(b"INFO"):
            await self.nc._process_info(json.loads(line[4:]))
        elif line.startswith(b"-ERR"):
            await self.nc._process_err(line[4:].strip().decode(errors="replace").lower())
        elif not line.startswith(b"+OK"):
            raise errors.ProtocolError


class FastClient(Client):
    """nats-py's client with direct subscriptions and synchronous sends; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = FastParser(self)
        self._ps = self._parser
        self._flush_asked = False

    async def subscribe_direct(self, subject: str, direct: Direct, *, queue: str = "") -> int:
        """Subscribe; returns the subscription's id. nats-py renews it after each reconnect.

        A fault that `direct` raises goes to the client's error callback.
        """
        sid = self._sid + 1
        self._parser.direct[b"%d" % sid] = direct  # before the server can send: the first message may come at once
        subscription = await self.subscribe(subject, queue=queue)
        assert subscription._id == sid, "nats-py numbers its subscriptions in another way"  # noqa: S101
        return sid

    async def unsubscribe_direct(self, sid: int) -> None:
        """Ask for no more, handle what the server has sent until then, and forget the subscription.

        :raises nats.errors.Error: the connection was lost meanwhile; the subscription is forgotten all the same.
        """
        try:
            if self.is_connected:
                await self._send_unsubscribe(sid)
                await self.flush(_FLUSH_S)
        finally:
            self._parser.direct.pop(b"%d" % sid, None)
            self._remove_sub(sid)

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent: here and in the socket's buffer."""
        writer = self._writer()
        return self._pending_data_size + (0 if writer is None else writer.transport.get_write_buffer_size())

    def send(self, command: bytes) -> None:
        """Queue a complete protocol command; all of this tick leave in one write.

        When the socket is full they stay in `pending_data_size`, which the caller bounds.
        """
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._flush_asked:
            self._flush_asked = True
            asyncio.get_running_loop().call_soon(self._flush_asked_for)

    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._transport, "_io_writer", None)

    def _flush_asked_for(self) -> None:
        self._flush_asked = False
        writer = self._writer()
        if writer is not None and writer.transport.get_write_buffer_size() > _SOCKET_FULL:
            self._flush_asked = True
            asyncio.get_running_loop().call_later(_SOCKET_RETRY_S, self._flush_asked_for)
        else:
            self._flush_now()

    def _flush_now(self) -> None:
        writer = self._writer()
        if writer is None or not self.is_connected or not self._pending:
            return  # kept: nats-py sends it once it is connected again
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        self.stats["out_msgs"] += len(pending)
        writer.write(b"".join(pending))

    async def close(self) -> None:
        """End, in whatever state the connection is; what cannot be sent any more is dropped."""
        if not self.is_connected:
            self._pending, self._pending_data_size = [], 0
        with contextlib.suppress(OSError):  # lost while it was being closed
            await super().close()

    async def _send_ping(self, future: "asyncio.Future[bool] | None" = None) -> None:
        """nats-py writes the PING ahead of what is queued; a flush is to say that the queued was read, too."""
        self._flush_now()
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.Future()
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect on whatever the server complains about; a refused permission concerns one subject only."""
        error = errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        if PERMISSIONS_ERR not in err_msg:
            await self._process_op_err(error)

    async def _attempt_reconnect(self) -> None:
        # An attempt that notices its cancellation late ends its successor's future, whose own end then fails on it.
        with contextlib.suppress(asyncio.InvalidStateError):
            await super()._attempt_reconnect()

    @property
    def stuck(self) -> bool:
        """Closed by nats-py, or reconnecting with nobody at it: a new client is needed."""
        task = self._reconnection_task
        return self.is_closed or (self.is_reconnecting and (task is None or task.done()))
