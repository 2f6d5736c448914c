"""One connection after its handshake: a pipeline out, its replies in, then the next pipeline.

redis-py connects: TLS, login, database. Then a `Pipeline` takes its transport, so that replies are handled where the
event loop reads them, without a task, a future or a stream. A fault closes the connection, so a late reply has no
reader.

The transport buffers what the socket does not take. With one pipeline at a time, that is at most one pipeline, so there
is nothing to pause: the reply timeout covers it, and starts again when the server has read most of it.
"""

# ruff: noqa: SLF001 - redis-py gives no other way to its transport

import asyncio
from typing import Any, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from router.errors import OutcomeUnknown
from router.store.servers.endpoints import error_reader

CLOSED = "the connection was closed"


class Receiver(Protocol):
    """What a pipeline reports to, once: either `received` or `lost`. Both are called by the event loop."""

    def received(self, replies: list[Any]) -> None:
        """All replies are there, in order; an error reply is in the list as a ResponseError. It must not raise."""

    def lost(self, fault: OutcomeUnknown) -> None:
        """The connection is closed, and some replies are missing. The commands may have been executed."""


class Pipeline(asyncio.Protocol):
    """Sends pipelines over a connection that redis-py has made. One user at a time."""

    __slots__ = (
        "_connection",
        "_due",
        "_expected",
        "_loop",
        "_reader",
        "_receiver",
        "_replies",
        "_timeout_s",
        "_timer",
        "_transport",
        "closed",
    )

    def __init__(self, connection: AbstractConnection, reply_timeout_s: float) -> None:
        reader, writer = connection._reader, connection._writer
        if reader is None or writer is None:
            raise ValueError("a pipeline needs a connection that is connected")
        self._loop = asyncio.get_running_loop()
        # It keeps its stream writer, which would close the transport when it is collected.
        self._connection = connection
        self._timeout_s = reply_timeout_s
        self._reader = hiredis.Reader(replyError=error_reader(connection))
        self._replies: list[Any] = []
        self._expected = 0
        self._receiver: Receiver | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport = writer.transport
        self._transport.set_protocol(self)
        self.closed = False
        if reader.at_eof():
            # The end is reported once, and the stream has it already.
            self.close()

    def send(self, data: bytes, replies: int, receiver: Receiver) -> None:
        """Send commands that get so many replies. The pipeline before must have its replies."""
        self._receiver, self._expected = receiver, replies
        self._due = self._loop.time() + self._timeout_s
        if self._timer is None:
            # One timer for all pipelines: it is set for a later moment when it finds that its own has its replies.
            self._timer = self._loop.call_at(self._due, self._check)
        self._transport.write(data)

    def resume_writing(self) -> None:
        """Restart the reply timeout: the server has read most of a large pipeline."""
        self._due = self._loop.time() + self._timeout_s

    def data_received(self, data: bytes) -> None:
        """Read replies from the bytes; report when all are there."""
        replies, gets = self._replies, self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:
                if isinstance(reply, RedisConnectionError):
                    self.close(str(reply))
                    return
                replies.append(reply)
        except Exception as fault:  # bytes that are no reply; redis-py's errors raise, too, for a strange redirection
            self.close(f"an unreadable reply: {fault}")
            return
        receiver = self._receiver
        if receiver is None or len(replies) > self._expected:
            self.close("a reply to no command")
        elif len(replies) == self._expected:
            self._receiver, self._replies = None, []
            receiver.received(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss to the user of the pipeline in flight."""
        self.close(str(exc) if exc else "Connection closed by server.")

    def close(self, why: str = CLOSED) -> None:
        """Close the connection; a pipeline in flight is lost. Bytes that the server has not read are dropped."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        self._connection._close()  # type: ignore[no-untyped-call]
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(OutcomeUnknown(f"Redis: {why}"))

    def _check(self) -> None:
        self._timer = None
        if self._receiver is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._check)
            return
        unread = self._transport.get_write_buffer_size()
        self.close("nothing was read in time" if unread else "no reply in time")
