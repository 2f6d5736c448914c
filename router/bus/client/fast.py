"""A nats-py client whose hot path has no task, queue or future per message. It and `router.nats_tls` use nats-py's
internals.

It changes these things:

- Messages of *direct* subscriptions are handled where their bytes arrive, by a plain function, in the order of arrival:
  `router.bus.client.incoming` and `router.bus.client.parser`. All other messages and commands go to nats-py.
- `send` appends a command to nats-py's outgoing list and schedules one flush per tick of the event loop. So one tick
  makes one write. Order is kept, and commands unsent at a disconnect go out after the reconnect.
- A flush covers everything queued before it.
- A reconnect that is cancelled late ends without an unhandled error.
- A PONG that comes after the timeout of its flush is ignored. In nats-py it ends the read loop: the client stays
  connected and receives nothing.
- An `-ERR` of the server never closes the client. nats-py gives up on all kinds but two; a pod must reconnect.

Instructions per request, from the bytes of the request to those of its reply of 411 bytes with one header, in Python
3.11 (callgrind): 92,000 if a read brings one request, 28,000 of 16, and 25,000 of 128.

`router.bus.client.nats_py` lists the functions of nats-py that these modules use, and refuses a nats-py in which they
differ.
"""
# ruff: noqa: SLF001 - this module exists to use private names of nats-py

import asyncio
import contextlib
import sys
from collections.abc import Container
from typing import Any, cast

from nats import errors
from nats.protocol.parser import PERMISSIONS_ERR

from router.bus.client.incoming import Incoming
from router.bus.client.parser import Direct, FastParser
from router.nats_tls import TlsClient

_FLUSH_S = 5
_SOCKET_FULL_BYTES = 8 << 20
_SOCKET_RETRY_S = 0.01


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

    def send(self, command: bytes, max_unsent: int = sys.maxsize) -> bool:
        """Queue a complete protocol command; all commands of a tick leave in one write.

        False: more than `max_unsent` bytes wait already, because the socket is full; nothing was queued.
        """
        if self._pending_data_size > max_unsent:
            return False
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._run_scheduled_flush)
        return True

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

    async def _read_loop(self) -> None:
        """Handle direct messages as they arrive; nats-py's loop reads what is left of its stream."""
        writer, reader = self._writer(), getattr(self._transport, "_io_reader", None)
        if writer is None or reader is None:
            await super()._read_loop()
            return
        transport = cast(asyncio.Transport, writer.transport)
        stream = cast(asyncio.StreamReaderProtocol, transport.get_protocol())
        incoming = Incoming(self._parser, transport, stream, unparsed=len(reader._buffer))
        incoming.start()
        try:
            await super()._read_loop()
        finally:
            incoming.stop()

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
