"""The client of a Redis Cluster.

`store.servers.endpoints` fills in hosts that the Cluster leaves out.

COMMAND is not used: the keys of our few commands are known here, and some providers block it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import RedisClusterException, ResponseError

from router.errors import StoreError, StoreUnavailable
from router.store.servers.endpoints import CLUSTER_SLOTS, node_connection
from router.store.servers.link import Command
from router.store.servers.nodes import Address, Client
from router.store.servers.options import ANYBODY, Access, cluster_options, connection_factory
from router.store.servers.refusals import USE_SINGLE, refused

# Commands whose key is not the first argument.
_SECOND_KEY = frozenset({"MEMORY", "XINFO"})
_COUNTED_KEYS = frozenset({"FCALL"})
_ALL_KEYS = frozenset({"UNLINK", "EXISTS"})


class KeyPositions:
    """Names the keys of our commands; stands in for redis-py's parser, which asks the server with COMMAND."""

    async def initialize(self, node: object = None) -> None:
        """Do not ask the server."""

    async def get_keys(self, *command: Any) -> tuple[Any, ...]:
        """The keys of a command. All keys of one command have one tag."""
        name = str(command[0]).upper()
        if name in _ALL_KEYS:
            return command[1:]
        if name in _COUNTED_KEYS:
            return command[3 : 3 + int(command[2])]
        return command[2:3] if name in _SECOND_KEY else command[1:2]


class Cluster(Client):
    """A Redis Cluster."""

    shares_calls = False

    def __init__(self, url: str, access: Access = ANYBODY, *, timeout_s: float = 1.0):
        super().__init__(_client(url, access, timeout_s))
        self._url = url
        self._access = access
        self._timeout_s = timeout_s

    async def renew(self, access: Access) -> None:
        fresh = _client(self._url, access, self._timeout_s)
        await self._replace(fresh, fresh.initialize)
        self._access = access

    async def open(self) -> None:
        try:
            await self._shielded(self._client.initialize())
        except StoreUnavailable as fault:
            raise _cause(fault) from fault

    def address_of(self, tag: bytes) -> Address:
        try:
            node = self._client.nodes_manager.get_node_from_slot(key_slot(tag))
        except (KeyError, RedisClusterException) as fault:
            raise StoreUnavailable(f"Redis: no node is known for {tag.decode()}") from fault
        return node.host, int(node.port)

    def connections(self, address: Address) -> Callable[[], AbstractConnection]:
        if address is None:
            raise ValueError("a Cluster's node has an address")
        return connection_factory(self._url, self._access, node=address)

    async def refresh(self) -> None:
        await self._shielded(self._client.nodes_manager.initialize())

    def _pipeline(self) -> Any:
        # The Cluster client has no `transaction` argument; it splits by node itself.
        return self._client.pipeline()

    async def _loaded(self, command: Command) -> list[Any]:
        calls = (self._shielded(node.execute_command(*command)) for node in self._client.get_primaries())
        return await asyncio.gather(*calls, return_exceptions=True)

    async def each(self, *command: bytes | str | int) -> list[Any]:
        try:
            return [await self._shielded(node.execute_command(*command)) for node in self._client.get_primaries()]
        except ResponseError as fault:
            raise refused(str(command[0]), fault) from fault


def _client(url: str, access: Access, timeout_s: float) -> Any:
    client = RedisCluster.from_url(url, **cluster_options(url, access, timeout_s=timeout_s))
    client.commands_parser = KeyPositions()  # type: ignore[assignment]
    # redis-py has no parameter for the class of the connections to nodes.
    kind = node_connection(client.connection_kwargs["connection_class"])
    client.connection_kwargs["connection_class"] = kind
    for node in client.startup_nodes:
        node.connection_class = kind  # type: ignore[assignment]
    return client


def _cause(fault: StoreUnavailable) -> StoreError:
    """The error that Redis gave to CLUSTER SLOTS: redis-py reports every refusal as "Cluster mode is not enabled"."""
    cause: BaseException | None = fault
    while cause is not None and not isinstance(cause, ResponseError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return fault
    if "cluster support disabled" in str(cause):
        return StoreError(f"Redis: {USE_SINGLE}")
    return refused(CLUSTER_SLOTS, cause)
