"""One connection to one Redis node, for scripts.

Requests never own this connection, so no caller can cancel a command on the wire and leave its reply for the next one.
After any fault it is closed, and the next pipeline makes another. redis-py's own retries are off.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from router.errors import OutcomeUnknown, StoreUnavailable
from router.store.servers.options import CONNECT_TIMEOUT_S
from router.store.servers.pipeline import CLOSED, Pipeline
from router.store.servers.refusals import unavailable

Command = Sequence[bytes | str | int | float]


class Link:
    """Keeps the connection to a node. One user at a time: `ask`, or `pipeline` and its `send`."""

    def __init__(self, make: Callable[[], AbstractConnection], reply_timeout_s: float) -> None:
        self._make = make
        self._timeout = reply_timeout_s
        self._packer = make()
        self._pipeline: Pipeline | None = None
        self._next: Pipeline | None = None

    def pack(self, commands: Sequence[Command]) -> list[bytes]:
        """The commands in wire format."""
        return self._packer.pack_commands(commands) if commands else []

    def pack_each(self, commands: Sequence[Command]) -> list[bytes]:
        """The commands in wire format, each in one piece."""
        return [b"".join(self._packer.pack_command(*command)) for command in commands]

    def pipeline(self) -> Pipeline | None:
        """The connection for the next pipeline. None: there is none; `ask` connects."""
        if self._next is not None:
            self._switch(self._next)
        pipeline = self._pipeline
        return None if pipeline is None or pipeline.closed else pipeline

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies of one pipeline; an error reply is in the list as a ResponseError. Connects if needed.

        :raises StoreUnavailable: there is no connection; nothing was sent.
        :raises OutcomeUnknown: not answered in time, or the connection broke; it is closed now.
        """
        pipeline = self.pipeline()
        if pipeline is None:
            pipeline = self._pipeline = await self._connected(self._make)
        replies = _Replies()
        pipeline.send(b"".join(self.pack(commands)), len(commands), replies)
        try:
            return await replies.future
        except asyncio.CancelledError:
            # Its replies must not reach the next user.
            pipeline.close()
            raise

    async def renew(self, make: Callable[[], AbstractConnection]) -> None:
        """Make connections in another way from now on. An open one is replaced between two pipelines, by one that is
        connected already.

        :raises StoreUnavailable: such a connection cannot be made; the old way stays.
        """
        fresh = await self._connected(make)
        self._make = make
        replaced, self._next = self._next, fresh
        if replaced is not None:
            replaced.close()

    def _switch(self, fresh: Pipeline) -> None:
        old, self._pipeline, self._next = self._pipeline, fresh, None
        if old is not None:
            old.close()

    async def _connected(self, make: Callable[[], AbstractConnection]) -> Pipeline:
        connection = make()
        try:
            # The handshake needs an answer, too: a frozen Redis still accepts connections.
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as fault:
            await connection.disconnect(nowait=True)
            raise StoreUnavailable(unavailable(fault)) from fault
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        pipeline = Pipeline(connection, self._timeout)
        if pipeline.closed:
            raise StoreUnavailable("Redis: the server closed the connection after its handshake")
        return pipeline

    def close(self, why: str = CLOSED) -> None:
        """Drop the connection; a pipeline in flight is lost. The next `ask` makes another."""
        connections = self._pipeline, self._next
        self._pipeline = self._next = None
        for pipeline in connections:
            if pipeline is not None:
                pipeline.close(why)


class _Replies:
    """Puts the replies of a pipeline into a future."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def received(self, replies: list[Any]) -> None:
        """See `Receiver`."""
        if not self.future.done():
            self.future.set_result(replies)

    def lost(self, fault: OutcomeUnknown) -> None:
        """See `Receiver`."""
        if not self.future.done():
            self.future.set_exception(fault)
