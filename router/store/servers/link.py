"""One connection to one Redis node, for scripts: a pipeline out, its replies in.

Requests never own this socket, so no caller can cancel a command on the wire and leave its reply for the next one.
After any fault the connection is closed, so a late reply has no reader. redis-py's own retries are off.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from router.errors import OutcomeUnknown, StoreUnavailable
from router.store.servers.options import CONNECT_TIMEOUT_S
from router.store.servers.refusals import unavailable

Command = Sequence[bytes | str | int | float]


class Link:
    """Sends pipelines and reads their replies in order. One user at a time: `send`, then `receive`."""

    def __init__(self, make: Callable[[], AbstractConnection], reply_timeout_s: float) -> None:
        self._make = make
        self._timeout = reply_timeout_s
        self._packer = make()
        self._connection: AbstractConnection | None = None
        self._next: AbstractConnection | None = None

    def pack(self, commands: Sequence[Command]) -> list[bytes]:
        """The commands in wire format."""
        return self._packer.pack_commands(commands) if commands else []

    def pack_each(self, commands: Sequence[Command]) -> list[bytes]:
        """The commands in wire format, each in one piece."""
        return [b"".join(self._packer.pack_command(*command)) for command in commands]

    async def send(self, commands: Sequence[Command]) -> None:
        """Write a pipeline; see `send_packed`."""
        await self.send_packed(self.pack(commands))

    async def send_packed(self, packed: list[bytes]) -> None:
        """Write a packed pipeline.

        :raises StoreUnavailable: there is no connection; nothing was sent.
        :raises OutcomeUnknown: the connection broke while writing.
        """
        if self._next is not None:
            await self._switch()
        connection = self._connection or await self._connect()
        try:
            # A frozen Redis reads nothing, so a large write may wait, too.
            async with asyncio.timeout(self._timeout):
                await connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError, TimeoutError) as fault:
            await self.close()
            raise OutcomeUnknown(f"Redis: {str(fault) or 'nothing was read in time'}") from fault

    async def receive(self, replies: int) -> list[Any]:
        """The next `replies` replies of a pipeline; an error reply is in the list as a ResponseError.

        :raises OutcomeUnknown: not answered in time, or the connection broke; it is closed now.
        """
        connection = self._connection
        if connection is None:
            raise OutcomeUnknown("Redis: the connection was closed")
        received: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(replies):
                    try:
                        received.append(await connection.read_response(disconnect_on_error=False))
                    except RedisConnectionError:
                        raise
                    except ResponseError as refused:
                        received.append(refused)
        except (RedisError, OSError, TimeoutError) as fault:
            await self.close()
            raise OutcomeUnknown(f"Redis: {str(fault) or 'no reply in time'}") from fault
        except BaseException:
            await self.close()
            raise
        return received

    async def renew(self, make: Callable[[], AbstractConnection]) -> None:
        """Make connections in another way from now on. An open one is replaced between two pipelines, by one that is
        connected already.

        :raises StoreUnavailable: such a connection cannot be made; the old way stays.
        """
        fresh = await self._connected(make)
        self._make = make
        replaced, self._next = self._next, fresh
        if replaced is not None:
            await replaced.disconnect(nowait=True)

    async def _switch(self) -> None:
        old, self._connection, self._next = self._connection, self._next, None
        if old is not None:
            await old.disconnect(nowait=True)

    async def _connect(self) -> AbstractConnection:
        self._connection = connection = await self._connected(self._make)
        return connection

    async def _connected(self, make: Callable[[], AbstractConnection]) -> AbstractConnection:
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
        return connection

    async def close(self) -> None:
        """Drop the connection; the next `send` makes another."""
        connections = self._connection, self._next
        self._connection = self._next = None
        for connection in connections:
            if connection is not None:
                await connection.disconnect(nowait=True)
