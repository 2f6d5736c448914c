"""The Redis servers: the interface of both kinds (`Nodes`), and the client of one server. `servers.cluster` has the
client of a Cluster.

These clients carry everything but decide rows (see `store.decide.lane`). A call may wait for a connection. Commands are
shielded: a caller that is cancelled leaves no reply on the wire for the next caller.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from router.errors import OutcomeUnknown, StoreError, StoreForbidden, StoreLoginRefused, StoreUnavailable
from router.store.scripts.load import Script
from router.store.servers.link import Command
from router.store.servers.options import ANYBODY, Access, connection_factory, connection_pool
from router.store.servers.refusals import USE_CLUSTER, met_a_cluster, refused, unavailable

log = logging.getLogger(__name__)

Address = tuple[str, int] | None
_RETIRE_S = 10.0


class Nodes(Protocol):
    """One server or a Cluster."""

    follows: bool
    """Whether the primary may move at any time, and `refresh` must be called every second."""

    shares_calls: bool
    """Whether rows of all partitions may share a call."""

    async def open(self) -> None:
        """Connect; a Cluster's slots are loaded, too.

        :raises StoreUnavailable: Redis did not answer.
        """

    def address_of(self, tag: bytes) -> Address:
        """The node that has the keys with this hash tag; None: the only node.

        :raises StoreUnavailable: no node is known to have them.
        """

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        """A function that makes connections to a node."""

    async def refresh(self) -> None:
        """Load the slots of a Cluster again (after MOVED).

        :raises StoreError: no node answered.
        """

    async def call(self, *command: bytes | str | int | float) -> Any:
        """Run one command, routed by its key.

        :raises StoreError: it failed; `OutcomeUnknown` if it may have been executed.
        """

    async def gather(self, commands: Sequence[Command]) -> list[Any]:
        """Run several reads in as few round trips as possible, each routed by its key; replies in order.

        :raises StoreError: a read failed.
        """

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int | float]) -> Any:
        """Run a script; all keys have one tag.

        :raises StoreError: it failed.
        """

    async def load(self, script: Script) -> None:
        """Load a function library on every primary that answers; of another script there is nothing to load."""

    async def each(self, *command: bytes | str | int) -> list[Any]:
        """Run one command on every primary.

        :raises StoreError: it failed.
        """

    async def scan(self, pattern: str, step: int, maximum: int) -> list[bytes]:
        """Up to `maximum` keys that match a pattern, scanned in steps of `step` so that no node is blocked.

        Reads the whole key space: for operators' commands, never for a request.

        :raises StoreError: it failed.
        """

    def pages(self, pattern: bytes, step: int) -> AsyncIterator[list[bytes]]:
        """All keys that match a pattern, in pages of about `step`; no node is blocked.

        A key that exists during the whole scan comes at least once. For background work, never for a request.

        :raises StoreError: it failed.
        """

    async def renew(self, access: Access) -> None:
        """Use these credentials and TLS files for new connections. Old connections are closed when their calls have
        ended.

        :raises StoreError: Redis refuses them, or is unavailable; the old ones stay in use.
        """

    async def close(self) -> None:
        """Close every connection."""


def _consume_exception(call: "asyncio.Future[Any]") -> None:
    """Consume the exception of a call whose caller was cancelled, so that asyncio does not log it as unhandled."""
    if not call.cancelled():
        call.exception()


class Client:
    """The part that all kinds share: shielded calls, and the translation of redis-py's errors."""

    follows = False
    shares_calls = True

    def __init__(self, client: Any) -> None:
        self._client = client
        self._retired: dict[asyncio.Task[None], Any] = {}

    async def _shielded(self, awaitable: Awaitable[Any]) -> Any:
        call = asyncio.ensure_future(awaitable)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.add_done_callback(_consume_exception)
            raise
        except RedisTimeoutError as fault:
            raise OutcomeUnknown(f"Redis: {fault}") from fault
        except AuthenticationError as fault:
            raise StoreLoginRefused(unavailable(fault)) from fault
        except (RedisConnectionError, ClusterDownError, TryAgainError, RedisClusterException, OSError) as fault:
            raise StoreUnavailable(unavailable(fault)) from fault
        except ReadOnlyError:
            await self._demoted()
            raise
        except ResponseError:
            raise
        except RedisError as fault:
            raise StoreError(f"Redis: {fault}") from fault

    async def _demoted(self) -> None:
        """The server has become a replica; a Cluster's client finds the new primary by itself."""

    async def call(self, *command: bytes | str | int | float) -> Any:
        try:
            return await self._shielded(self._client.execute_command(*command))
        except ResponseError as fault:
            raise self._refused(str(command[0]), fault) from fault

    def _refused(self, command: str, fault: ResponseError) -> StoreError:
        """The error for a refused command."""
        return refused(command, fault)

    async def gather(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        pipeline = self._pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        try:
            replies: list[Any] = await self._shielded(pipeline.execute())
        except ResponseError as fault:
            raise self._refused(str(commands[0][0]), fault) from fault
        return replies

    def _pipeline(self) -> Any:
        return self._client.pipeline(transaction=False)

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int | float]) -> Any:
        verb, name = script.call
        try:
            try:
                return await self._shielded(self._client.execute_command(verb.decode(), name, len(keys), *keys, *args))
            except ResponseError as fault:
                if not script.missing(fault):
                    raise
            # Nothing was executed. EVAL needs nothing that is loaded, wherever a redirection leads; it loads a script.
            await self.load(script)
            source = script.without_functions().source
            return await self._shielded(self._client.execute_command("EVAL", source, len(keys), *keys, *args))
        except ResponseError as fault:
            raise self._refused(script.name, fault) from fault

    async def load(self, script: Script) -> None:
        if not script.library:
            return
        for reply in await self._loaded(script.load):
            if isinstance(reply, Exception):
                log.error("Redis did not load a script: %s", reply)

    async def _loaded(self, command: Command) -> list[Any]:
        """What every primary replied to a command without a key, or why it did not."""
        call = self._shielded(self._client.execute_command(*command))
        return list(await asyncio.gather(call, return_exceptions=True))

    async def scan(self, pattern: str, step: int, maximum: int) -> list[bytes]:
        keys: list[bytes] = []
        try:
            async for key in self._client.scan_iter(match=pattern, count=step):
                keys.append(key)
                if len(keys) >= maximum:
                    break
        except ResponseError as fault:
            raise self._refused("SCAN", fault) from fault
        except RedisError as fault:
            raise StoreError(f"Redis: {fault}") from fault
        return keys

    async def pages(self, pattern: bytes, step: int) -> AsyncIterator[list[bytes]]:
        page: list[bytes] = []
        try:
            async for key in self._client.scan_iter(match=pattern, count=step):
                page.append(key)
                if len(page) >= step:
                    yield page
                    page = []
        except ResponseError as fault:
            raise self._refused("SCAN", fault) from fault
        except RedisError as fault:
            raise StoreError(f"Redis: {fault}") from fault
        if page:
            yield page

    async def _replace(self, fresh: Any, check: Callable[[], Awaitable[Any]]) -> None:
        """Use another client, if `check` finds that it works. The old one is closed when its calls have ended."""
        try:
            await self._shielded(check())
        except ResponseError as fault:
            await fresh.aclose()
            raise self._refused("AUTH", fault) from fault
        except BaseException:
            await fresh.aclose()
            raise
        old, self._client = self._client, fresh
        retiring = asyncio.create_task(self._retire(old), name="old Redis client")
        self._retired[retiring] = old
        retiring.add_done_callback(lambda done: self._retired.pop(done, None))

    async def _retire(self, old: Any) -> None:
        await asyncio.sleep(_RETIRE_S)
        await old.aclose()

    async def close(self) -> None:
        retired = dict(self._retired)
        for retiring in retired:
            retiring.cancel()
        await asyncio.gather(*retired, return_exceptions=True)
        for client in (self._client, *retired.values()):
            await client.aclose()


class SingleNode(Client):
    """One server (a primary)."""

    def __init__(self, url: str, access: Access = ANYBODY, *, timeout_s: float = 1.0):
        super().__init__(Redis.from_pool(connection_pool(url, access, timeout_s=timeout_s)))
        self._url, self._timeout_s = url, timeout_s
        self._make = connection_factory(url, access)

    async def renew(self, access: Access) -> None:
        fresh = Redis.from_pool(connection_pool(self._url, access, timeout_s=self._timeout_s))
        await self._replace(fresh, fresh.ping)
        self._make = connection_factory(self._url, access)

    async def open(self) -> None:
        await self.call("PING")
        try:
            (facts,) = await self.each("INFO", "cluster")
        except StoreForbidden:
            # The first refusal of a key's command decides.
            return
        if facts.get("cluster_enabled"):
            raise StoreError(f"Redis: {USE_CLUSTER}")

    def _refused(self, command: str, fault: ResponseError) -> StoreError:
        if met_a_cluster(fault):
            return StoreError(f"Redis: {USE_CLUSTER}")
        return super()._refused(command, fault)

    async def _demoted(self) -> None:
        # The demoted server kept our connections, and its address may lead to the new primary now.
        await self._client.connection_pool.disconnect(inuse_connections=False)

    def address_of(self, tag: bytes) -> Address:
        return None

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        return self._make

    async def refresh(self) -> None:
        return

    async def each(self, *command: bytes | str | int) -> list[Any]:
        return [await self.call(*command)]
