"""The Redis that we talk to: one server, or a Cluster whose nodes own partitions.

The general client is for everything but decide: it may wait, and its commands are shielded, so that a cancelled caller
never leaves a reply on the wire for the next one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from router.errors import OutcomeUnknown, StoreDamaged, StoreError, StoreUnavailable
from router.store.decide.link import DRIVER, Command, connection_factory
from router.store.scripts import Script

Address = tuple[str, int] | None


class Access(Struct, frozen=True):
    """Who we are to Redis, and whom we trust: what the URL does not say. `tls_ca` is the path of a CA bundle."""

    username: str | None = None
    password: str | None = None
    tls_ca: str | None = None

    def options(self) -> dict[str, Any]:
        """As redis-py calls them; only what is given."""
        given = {"username": self.username, "password": self.password, "ssl_ca_certs": self.tls_ca}
        return {name: value for name, value in given.items() if value is not None}


ANYBODY = Access()


class Nodes(Protocol):
    """One server or a Cluster."""

    async def open(self) -> None:
        """Connect (and learn the slots).

        :raises StoreUnavailable: there is no answer.
        """

    def address_of(self, tag: bytes) -> Address:
        """Which node has the keys with this hash tag; None: the only one.

        :raises StoreUnavailable: no node is known to have them.
        """

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        """Makes connections to a node."""

    async def refresh(self) -> None:
        """Learn the slots anew (after MOVED)."""

    async def call(self, *command: bytes | str | int | float) -> Any:
        """One command, by its key.

        :raises StoreError: it did not work; `OutcomeUnknown` when it may have been executed.
        """

    async def gather(self, commands: Sequence[Command]) -> list[Any]:
        """Several reads in as few round trips as possible, each by its key, in order.

        :raises StoreError: it did not work.
        """

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int | float]) -> Any:
        """A script; all keys have one tag.

        :raises StoreError: it did not work.
        """

    async def each(self, *command: bytes | str | int) -> list[Any]:
        """One command on every primary.

        :raises StoreError: it did not work.
        """

    async def scan(self, pattern: str, step: int, maximum: int) -> list[bytes]:
        """Up to `maximum` keys of a pattern, `step` at a time so that no node is held up. For people, not for requests.

        :raises StoreError: it did not work.
        """

    def pages(self, pattern: bytes, step: int) -> AsyncIterator[list[bytes]]:
        """All keys of a pattern, in pages of about `step`, each a short look at a node. For people, not for requests.

        Keys that are there all the while come at least once.

        :raises StoreError: it did not work.
        """

    async def close(self) -> None:
        """Close every connection."""


def _refused(what: str, fault: ResponseError) -> StoreError:
    kind = StoreDamaged if "WRONGTYPE" in str(fault) else StoreError
    return kind(f"Redis refused {what}: {fault}")


def _unheard(call: "asyncio.Future[Any]") -> None:
    """Its caller has gone: that it failed concerns nobody, and asyncio need not log it as forgotten."""
    if not call.cancelled():
        call.exception()


class _Client:
    """What both kinds share: shielded calls, one translation of errors."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def _shielded(self, awaitable: Awaitable[Any]) -> Any:
        call = asyncio.ensure_future(awaitable)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.add_done_callback(_unheard)
            raise
        except RedisTimeoutError as fault:
            raise OutcomeUnknown(f"Redis: {fault}") from fault
        except (RedisConnectionError, ClusterDownError, TryAgainError, RedisClusterException, OSError) as fault:
            raise StoreUnavailable(f"Redis: {fault}") from fault
        except ReadOnlyError:
            await self._demoted()
            raise
        except ResponseError:
            raise
        except RedisError as fault:
            raise StoreError(f"Redis: {fault}") from fault

    async def _demoted(self) -> None:
        """The server is a replica now; a Cluster's client looks for the primary by itself."""

    async def call(self, *command: bytes | str | int | float) -> Any:
        try:
            return await self._shielded(self._client.execute_command(*command))
        except ResponseError as fault:
            raise _refused(str(command[0]), fault) from fault

    async def gather(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        pipeline = self._pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        try:
            found: list[Any] = await self._shielded(pipeline.execute())
        except ResponseError as fault:
            raise _refused(str(commands[0][0]), fault) from fault
        return found

    def _pipeline(self) -> Any:
        return self._client.pipeline(transaction=False)

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int | float]) -> Any:
        try:
            try:
                return await self._shielded(self._client.evalsha(script.sha.decode(), len(keys), *keys, *args))
            except NoScriptError:
                # EVAL also loads it; nothing had been executed.
                return await self._shielded(self._client.eval(script.source.decode(), len(keys), *keys, *args))
        except ResponseError as fault:
            raise _refused(script.name, fault) from fault

    async def scan(self, pattern: str, step: int, maximum: int) -> list[bytes]:
        found: list[bytes] = []
        try:
            async for key in self._client.scan_iter(match=pattern, count=step):
                found.append(key)
                if len(found) >= maximum:
                    break
        except RedisError as fault:
            raise StoreError(f"Redis: {fault}") from fault
        return found

    async def pages(self, pattern: bytes, step: int) -> AsyncIterator[list[bytes]]:
        page: list[bytes] = []
        try:
            async for key in self._client.scan_iter(match=pattern, count=step):
                page.append(key)
                if len(page) >= step:
                    yield page
                    page = []
        except RedisError as fault:
            raise StoreError(f"Redis: {fault}") from fault
        if page:
            yield page

    async def close(self) -> None:
        await self._client.aclose()


class SingleNode(_Client):
    """One server (a primary)."""

    def __init__(self, url: str, access: Access = ANYBODY, *, timeout_s: float = 1.0):
        super().__init__(
            Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=DRIVER,
                **access.options(),
            )
        )
        self._make = connection_factory(url, **access.options())

    async def open(self) -> None:
        await self.call("PING")

    async def _demoted(self) -> None:
        # It kept our connections: the address may lead to its successor by now.
        await self._client.connection_pool.disconnect(inuse_connections=False)

    def address_of(self, tag: bytes) -> Address:
        return None

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        return self._make

    async def refresh(self) -> None:
        return

    async def each(self, *command: bytes | str | int) -> list[Any]:
        return [await self.call(*command)]


class Cluster(_Client):
    """A Redis Cluster."""

    def __init__(self, url: str, access: Access = ANYBODY, *, timeout_s: float = 1.0):
        super().__init__(
            RedisCluster.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                driver_info=DRIVER,
                **access.options(),
            )
        )
        self._url = url
        self._access = access.options()

    async def open(self) -> None:
        await self._shielded(self._client.initialize())

    def address_of(self, tag: bytes) -> Address:
        try:
            node = self._client.nodes_manager.get_node_from_slot(key_slot(tag))
        except (KeyError, RedisClusterException) as fault:
            raise StoreUnavailable(f"Redis: no node is known for {tag.decode()}") from fault
        return node.host, int(node.port)

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        if address is None:
            raise ValueError("a Cluster's node has an address")
        return connection_factory(self._url, host=address[0], port=address[1], **self._access)

    async def refresh(self) -> None:
        await self._shielded(self._client.nodes_manager.initialize())

    def _pipeline(self) -> Any:
        # It has no `transaction` argument; it splits by node itself.
        return self._client.pipeline()

    async def each(self, *command: bytes | str | int) -> list[Any]:
        try:
            return [await self._shielded(node.execute_command(*command)) for node in self._client.get_primaries()]
        except ResponseError as fault:
            raise _refused(str(command[0]), fault) from fault
