"""Calls whose effect replicas must have before anybody is told of it (`ROUTER_WAIT_REPLICAS`).

WAIT covers what its own connection wrote, so script, marker and WAIT are one pipeline on one connection: no failover
can come between them. The marker is written because the script may have changed nothing. It comes behind everything in
the replication stream that the script has read, so a repeat that finds its work done by another pod waits, too.

A call that was not confirmed is executed, and nobody knows what a failover leaves of it. Until replicas confirm a
marker alone, later calls are refused before they are executed: a repeat every second would otherwise write a note into
the audit log every second.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import AskError, MovedError, ReadOnlyError, ResponseError, TryAgainError

from router.errors import NotReplicated, StoreUnavailable
from router.store.keys import MARKER_MS, marker_beside, tag_of
from router.store.scripts.load import Script
from router.store.servers.endpoints import HostUnknownError
from router.store.servers.link import Command, Link
from router.store.servers.nodes import Address, Nodes
from router.store.servers.refusals import refused

WAIT_MS = 500
"""How long a call waits for replicas. Consumers, operators and sweepers have more time than a request."""
CONFIRM = "confirm"
"""Stands for the script's name in reports of a marker alone."""
_REPLY_TIMEOUT_S = 1.0
_MAX_CONNECTIONS = 8
_TRY_AGAIN_S = 0.005
_REDIRECTED_FOR_S = 1.0


def _ignore(_call: str) -> None:
    """Ignore a call that was not confirmed."""


class _Node:
    """Connections to one node, at most `_MAX_CONNECTIONS`; a pipeline has one of them for itself."""

    def __init__(self, link: Callable[[], Link]) -> None:
        self._link = link
        self._idle: list[Link] = []
        self._turns = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._closed = False
        self.lags = False
        self.asked_again_at = 0.0

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies of one pipeline; see `Link.ask`."""
        async with self._turns:
            link = self._idle.pop() if self._idle else self._link()
            try:
                replies = await link.ask(commands)
                if any(isinstance(reply, ReadOnlyError) for reply in replies):
                    # The demoted server kept our connection, and its address may lead to the new primary now.
                    link.close()
            finally:
                if self._closed:
                    link.close()
                else:
                    self._idle.append(link)
        return replies

    async def close(self) -> None:
        """Close the idle connections; those in use are closed after their pipeline."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class Replicas:
    """Runs scripts, and returns when `required` replicas have their effect; with 0 it runs them as `nodes` does.

    `on_unconfirmed` is called with the script's name, or `CONFIRM`.
    """

    def __init__(
        self,
        nodes: Nodes,
        required: int = 0,
        *,
        on_unconfirmed: Callable[[str], None] = _ignore,
        wait_ms: int = WAIT_MS,
    ) -> None:
        self._nodes = nodes
        self._required = required
        self._on_unconfirmed = on_unconfirmed
        self._wait: Command = ("WAIT", required, wait_ms)
        self._timeout_s = _REPLY_TIMEOUT_S + wait_ms / 1000
        self._again_s = wait_ms / 1000
        self._at: dict[Address, _Node] = {}

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int | float]) -> Any:
        """Run a script; all keys have one tag, or there is only one node.

        :raises NotReplicated: it was executed, and too few replicas have confirmed it in time.
        :raises StoreUnavailable: nothing was executed, because too few replicas confirm anything.
        :raises StoreError: it failed.
        """
        if not self._required:
            return await self._nodes.run(script, keys, args)
        call: Command = (*script.call, len(keys), *keys, *args)
        reply = await self._routed(script.name, call, keys[0])
        if script.missing(reply):
            # Nothing was executed. EVAL needs nothing that is loaded, wherever a redirection leads; it loads a script.
            await self._nodes.load(script)
            call = ("EVAL", script.without_functions().source, len(keys), *keys, *args)
            reply = await self._routed(script.name, call, keys[0])
        if isinstance(reply, ResponseError):
            raise refused(script.name, reply) from reply
        return reply

    async def confirm(self, keys: Sequence[bytes]) -> None:
        """Return when replicas have what the nodes of these keys had written before this call.

        :raises StoreUnavailable: too few replicas have confirmed it in time.
        :raises StoreError: a node did not answer.
        """
        if not self._required:
            return
        for key in {self._nodes.address_of(tag_of(key)): key for key in keys}.values():
            await self._routed(CONFIRM, None, key)

    async def _routed(self, name: str, command: Command | None, key: bytes) -> Any:
        """The reply to a command, at the node that has the key now; a refusal that is no redirection is returned."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _REDIRECTED_FOR_S
        address, asking = self._nodes.address_of(tag_of(key)), False
        while True:
            reply = await self._executed(name, command, key, address, asking=asking)
            redirected = isinstance(reply, (MovedError, AskError, TryAgainError, HostUnknownError))
            if address is None or not redirected or loop.time() >= until:
                return reply
            asking = False
            if isinstance(reply, (MovedError, HostUnknownError)):
                await self._nodes.refresh()
            if isinstance(reply, (MovedError, AskError)):
                address, asking = (reply.host, reply.port), isinstance(reply, AskError)
            else:
                await asyncio.sleep(_TRY_AGAIN_S)
                address = self._nodes.address_of(tag_of(key))

    async def _executed(self, name: str, command: Command | None, key: bytes, address: Address, *, asking: bool) -> Any:
        node = await self._node(address)
        if node.lags and command is not None:
            if isinstance(refusal := await self._executed(CONFIRM, None, key, address, asking=asking), ResponseError):
                return refusal
        elif node.lags and asyncio.get_running_loop().time() < node.asked_again_at:
            raise self._behind()
        keyed: list[Command] = [("SET", marker_beside(key), b"", "PX", MARKER_MS)]
        if command is not None:
            keyed.insert(0, command)
        commands = [c for k in keyed for c in ((("ASKING",), k) if asking else (k,))]
        replies = await node.ask([*commands, self._wait])
        reply, marker, confirmed = replies[int(asking)], replies[-2], replies[-1]
        if isinstance(reply, ResponseError):
            return reply
        if isinstance(marker, ResponseError) or not isinstance(confirmed, int) or confirmed < self._required:
            node.lags = True
            node.asked_again_at = asyncio.get_running_loop().time() + self._again_s
            self._on_unconfirmed(name)
            if command is None:
                raise self._behind()
            why = next((f": {r}" for r in (marker, confirmed) if isinstance(r, ResponseError)), "")
            raise NotReplicated(
                f"Redis: {name} was executed, but not confirmed by {self._required} replicas in time{why}; a failover "
                "may undo it"
            )
        node.lags = False
        return reply

    def _behind(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"Redis: {self._required} replicas (ROUTER_WAIT_REPLICAS) do not confirm writes in time"
        )

    async def _node(self, address: Address) -> _Node:
        node = self._at.get(address)
        if node is None:
            if self._nodes.follows:
                await self.close()  # of the primary before
            make = self._nodes.connections(address)
            node = self._at[address] = _Node(lambda: Link(make, self._timeout_s))
        return node

    async def close(self) -> None:
        """Close every connection, those in use after their pipeline. A later call makes new ones, with the credentials
        that the nodes have then.
        """
        nodes, self._at = self._at, {}
        for node in nodes.values():
            await node.close()
