"""A nats-py client whose hot path has no task, queue or future per message. It and `router.nats_tls` use nats-py's
internals.

It changes these things:

- `FastParser` scans a whole chunk with `bytes.find`. It calls a plain function with each message of a *direct*
  subscription, in the order of arrival, inside the read loop. All other messages and commands go to nats-py.
- `send` appends a command to nats-py's outgoing list and schedules one flush per tick of the event loop. So one tick
  makes one write. Order is kept, and commands unsent at a disconnect go out after the reconnect.
- A flush covers everything queued before it.
- A reconnect that is cancelled late ends without an unhandled error.
- A PONG that comes after the timeout of its flush is ignored. In nats-py it ends the read loop: the client stays
  connected and receives nothing.
- An `-ERR` of the server never closes the client. nats-py gives up on all kinds but two; a pod must reconnect.

CPU of the receiving process per request in µs: receive, and reply with 411 bytes and one header. Measured with Python
3.11 and one closed-loop client on the same machine. "The door" is the whole `DecideDoor`:

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

`router.bus.client.nats_py` lists the functions of nats-py that this module uses, and refuses a nats-py in which they
differ.
"""
# ruff: noqa: SLF001 - this module exists to use private names of nats-py

import asyncio
import contextlib
import json
from collections.abc import Callable, Container
from typing import Any

from nats import errors
from nats.protocol.parser import PERMISSIONS_ERR, Parser

from router.nats_tls import TlsClient

Direct = Callable[[bytes, bytes, bytes, bytes | None], None]
"""`(subject, reply or b"", payload, raw header block or None)`; called in the read loop, so it must not block."""

_CRLF = b"\r\n"
_M, _H = b"MH"
_MAX_MESSAGE_BYTES = 128 << 20  # twice the largest setting of a server; more is not NATS
_YIELD_AFTER = 64  # messages: then other callbacks of the event loop run, and queued commands are flushed
_FLUSH_S = 5
_SOCKET_FULL_BYTES = 8 << 20
_SOCKET_RETRY_S = 0.01


class FastParser(Parser):
    """The replacement of nats-py's parser; see the module."""

    def __init__(self, client: "FastClient") -> None:
        self.direct: dict[bytes, Direct] = {}
        super().__init__(client)

    def reset(self) -> None:
        """Forget an incomplete message: its connection is closed."""
        super().reset()
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        """Handle all complete messages in the data read so far.

        :raises nats.errors.ProtocolError: the data is not NATS; nats-py then reconnects.
        """
        if self._chunks:  # joined only when the message is complete: a payload of 4 MiB comes in 128 chunks
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
        except Exception as error:  # report it, and reconnect: nats-py's read loop would end in silence
            await self.nc._error_cb(error)
            raise errors.ProtocolError from error
        if handled:
            self.nc.stats["in_msgs"] += handled
            self.nc.stats["in_bytes"] += len(data)
            if handled >= _YIELD_AFTER:
                await asyncio.sleep(0)

    async def _scan(self, data: bytes) -> int:  # noqa: PLR0912 - one loop: a call per message is a tenth of it
        """Handle complete messages and keep an incomplete rest; return the number of direct messages."""
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
                    except Exception as error:  # an error in one message must not end the read loop
                        await self.nc._error_cb(error)
            else:
                command = data[pos:eol]
                pos = eol + 2
                await self._command(command)
            if self._chunks is not generation:
                return handled  # reset meanwhile: the rest came from a closed connection
        if pos < end:
            if need > _MAX_MESSAGE_BYTES:
                raise errors.ProtocolError
            self._chunks = [data[pos:]]
            self._have, self._need = end - pos, need
        return handled

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


class FastClient(TlsClient):
    """nats-py's client with direct subscriptions and synchronous sends; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = FastParser(self)
        self._ps = self._parser
        self._is_flush_scheduled = False

    async def subscribe_direct(self, subject: str, direct: Direct, *, queue: str = "") -> int:
        """Subscribe and return the subscription id. nats-py subscribes again after each reconnect.

        An exception of `direct` goes to the client's error callback.
        """
        sid = self._sid + 1
        self._parser.direct[b"%d" % sid] = direct  # set before the server can send the first message
        subscription = await self.subscribe(subject, queue=queue)
        assert subscription._id == sid, "nats-py numbers its subscriptions differently"  # noqa: S101
        return sid

    async def unsubscribe_direct(self, sid: int) -> None:
        """Unsubscribe, handle the messages sent before, and remove the subscription.

        :raises nats.errors.Error: the connection was lost meanwhile; the subscription is removed nevertheless.
        """
        try:
            if self.is_connected:
                await self._send_unsubscribe(sid)
                await self.flush(_FLUSH_S)
        finally:
            self._parser.direct.pop(b"%d" % sid, None)
            self._remove_sub(sid)

    def subscribe_again(self, subjects: Container[str]) -> set[str]:
        """Queue a SUB for each subscription on these subjects; return the subjects that have one.

        The server ignores a SUB for a subscription that it has.
        """
        found = set()
        for sid, subscription in self._subs.items():
            if (subject := subscription.subject) in subjects:
                found.add(subject)
                self.send(f"SUB {subject} {subscription.queue} {sid}\r\n".encode())
        return found

    def mute(self) -> None:
        """Call none of the callbacks of this client any more."""

        async def nothing(*_: object) -> None:
            """Ignore an event of this client."""

        self._error_cb = nothing
        self._disconnected_cb = self._reconnected_cb = self._closed_cb = self._lame_duck_mode_cb = None

    @property
    def awaited_replies(self) -> "list[asyncio.Future[Any]]":
        """The replies that requests of this client wait for."""
        return [reply for reply in self._resp_map.values() if not reply.done()]

    @property
    def unsent(self) -> int:
        """The bytes that wait in this client and in the socket's buffer."""
        writer = self._writer()
        return self._pending_data_size + (0 if writer is None else writer.transport.get_write_buffer_size())

    def send(self, command: bytes) -> None:
        """Queue a complete protocol command; all commands of a tick leave in one write.

        While the socket is full, commands stay in `pending_data_size`, which the caller must limit.
        """
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._run_scheduled_flush)

    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._transport, "_io_writer", None)

    def _run_scheduled_flush(self) -> None:
        self._is_flush_scheduled = False
        writer = self._writer()
        if writer is not None and writer.transport.get_write_buffer_size() > _SOCKET_FULL_BYTES:
            self._is_flush_scheduled = True
            asyncio.get_running_loop().call_later(_SOCKET_RETRY_S, self._run_scheduled_flush)
        else:
            self._flush_now()

    def _flush_now(self) -> None:
        writer = self._writer()
        if writer is None or not self.is_connected or not self._pending:
            return  # nats-py sends the commands after the reconnect
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        self.stats["out_msgs"] += len(pending)
        writer.write(b"".join(pending))

    async def close(self) -> None:
        """Close the connection in any state; commands that cannot be sent are dropped."""
        if not self.is_connected:
            self._pending, self._pending_data_size = [], 0
        with contextlib.suppress(OSError):  # the connection was lost meanwhile
            await super().close()

    async def _send_ping(self, future: "asyncio.Future[bool] | None" = None) -> None:
        """Write the queued commands before the PING, so that a flush covers them; nats-py writes the PING first."""
        self._flush_now()
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.Future()
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        """Report the error and reconnect, unless it is a refused permission, which affects only one subject.

        The text is as the server wrote it: nats-py's own parser makes it lower case, with the subject in it.
        """
        error = errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        if PERMISSIONS_ERR not in err_msg.lower():
            await self._process_op_err(error)

    async def _attempt_reconnect(self) -> None:
        # An attempt that notices its cancellation late sets the future of its successor, which then fails to set it.
        with contextlib.suppress(asyncio.InvalidStateError):
            await super()._attempt_reconnect()

    @property
    def stuck(self) -> bool:
        """Whether a new client is needed: nats-py closed this one, or no task is reconnecting it."""
        task = self._reconnection_task
        return self.is_closed or (self.is_reconnecting and (task is None or task.done()))
