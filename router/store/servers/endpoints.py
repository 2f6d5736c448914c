"""Connections to a Cluster's nodes that fill in hosts which the Cluster leaves out.

A null or empty host stands for the host of the node that answered. The host `?` stands for a host name that was not
announced: CLUSTER SLOTS has the address in its metadata, MOVED and ASK have nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, DefaultParser, SSLConnection
from redis.exceptions import AskError, ClusterDownError

CLUSTER_SLOTS = "CLUSTER SLOTS"
_UNANNOUNCED = "?"


class HostUnknownError(ClusterDownError):
    """A redirection names a node by a host name that it has not announced."""


class _Node(AbstractConnection):
    """The part that both kinds of connection share. While the slots are read, one command at a time is on the wire."""

    host: str
    _reads_slots = False

    def pack_command(self, *args: Any) -> list[bytes]:
        if args and args[0] == CLUSTER_SLOTS:
            # A new connection has the replies to its handshake first; none of them is a list.
            self._reads_slots = True
        return super().pack_command(*args)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            reply = await super().read_response(*args, **kwargs)
        except AskError as redirect:
            if (unknown := self._complete(redirect)) is not None:
                raise unknown from redirect
            raise
        if self._reads_slots and isinstance(reply, list):
            self._reads_slots = False
            for node in _listed(reply):
                node[0] = _text(node[0]) or self.host
                if node[0] == _UNANNOUNCED:
                    node[0] = _address(node) or self.host
        return reply

    def read_error(self, text: str) -> Exception:
        """The error of an error reply."""
        error = _error(text)
        return (self._complete(error) or error) if isinstance(error, AskError) else error

    def _complete(self, redirect: AskError) -> HostUnknownError | None:
        """Fill in the host of a redirection; the error that stands for it if the host is unknown."""
        if redirect.host == _UNANNOUNCED:
            return HostUnknownError(f"{redirect}: the node announces no host name")
        if not redirect.host:
            redirect.host = self.host
            redirect.node_addr = self.host, redirect.port
        return None


class NodeConnection(_Node, Connection):
    """A connection to a node."""


class SSLNodeConnection(_Node, SSLConnection):
    """A connection to a node over TLS."""


def node_connection(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The class for a Cluster's nodes in place of redis-py's class of the URL."""
    return SSLNodeConnection if issubclass(kind, SSLConnection) else NodeConnection


def _error(text: str) -> Exception:
    error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


def error_reader(connection: AbstractConnection) -> Callable[[str], Exception]:
    """A function that turns the text of an error reply into redis-py's error."""
    return connection.read_error if isinstance(connection, _Node) else _error


def _listed(slots: list[Any]) -> Iterator[list[Any]]:
    """The nodes in a reply to CLUSTER SLOTS; none if it is another reply, as after a refusal."""
    for row in slots:
        if isinstance(row, list) and isinstance(row[0], int):
            yield from (node for node in row[2:] if isinstance(node, list))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _address(node: list[Any]) -> str:
    """The `ip` in the metadata of a node; empty: there is none."""
    metadata = [_text(x) for x in node[3]] if len(node) > 3 else []
    return dict(zip(metadata[::2], metadata[1::2], strict=False)).get("ip", "")
