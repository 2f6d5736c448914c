"""Hosts that a Cluster leaves out, word for word as servers and providers send them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio.connection import SSLConnection
from redis.exceptions import AskError, MovedError, NoPermissionError

from router.store.servers.endpoints import (
    CLUSTER_SLOTS,
    HostUnknownError,
    NodeConnection,
    SSLNodeConnection,
    node_connection,
)


class Scripted:
    """A server that gives the same reply to whatever it is sent."""

    def __init__(self, *replies: bytes) -> None:
        self._replies = list(replies)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while await reader.read(4096):
            writer.write(self._replies.pop(0))
        writer.close()


async def replies(*raw: bytes, commands: tuple[tuple[str, ...], ...]) -> AsyncIterator[object]:
    """What a node's connection reads, one command after the other; a refusal is yielded."""
    server = await asyncio.start_server(Scripted(*raw).serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = NodeConnection(host="127.0.0.1", port=port, protocol=2, driver_info=None)
    try:
        for command in commands:
            await connection.send_packed_command(connection.pack_command(*command))
            try:
                yield await connection.read_response(disconnect_on_error=False)
            except (AskError, HostUnknownError, NoPermissionError) as refusal:
                yield refusal
    finally:
        await connection.disconnect()
        server.close()
        await server.wait_closed()


def node(host: bytes, *metadata: bytes) -> bytes:
    """A node of CLUSTER SLOTS in RESP."""
    texts = b"".join(b"$%d\r\n%b\r\n" % (len(m), m) for m in metadata)
    return b"*4\r\n%b:7000\r\n$2\r\nid\r\n*%d\r\n%b" % (host, len(metadata), texts)


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (node(b"$-1\r\n"), "127.0.0.1"),
        (node(b"$-1\r\n", b"ip", b"10.0.0.7"), "127.0.0.1"),
        (node(b"$0\r\n\r\n"), "127.0.0.1"),
        (node(b"$1\r\n?\r\n", b"ip", b"10.0.0.7"), "10.0.0.7"),
        (node(b"$1\r\n?\r\n", b"hostname", b"a", b"ip", b"::1"), "::1"),
        (node(b"$1\r\n?\r\n"), "127.0.0.1"),
        (node(b"$8\r\n10.0.0.9\r\n", b"hostname", b"a"), "10.0.0.9"),
        (node(b"$6\r\nr.svc1\r\n"), "r.svc1"),
    ],
)
async def test_nodes_without_a_host_are_where_the_answer_came_from(raw: bytes, host: str) -> None:
    """Null and empty: the node that answered; `?`: the address beside it. Replicas as primaries."""
    slots = b"*1\r\n*4\r\n:0\r\n:16383\r\n%b%b" % (raw, raw)
    found = [r async for r in replies(slots, commands=((CLUSTER_SLOTS,),))]
    assert [n[0] for row in found[0] for n in row[2:]] == [host, host]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (b"-MOVED 5 :7001\r\n", "127.0.0.1"),
        (b"-ASK 5 :7001\r\n", "127.0.0.1"),
        (b"-MOVED 5 10.0.0.9:7001\r\n", "10.0.0.9"),
        (b"-ASK 5 fd00::2:7001\r\n", "fd00::2"),
    ],
)
async def test_redirections_without_a_host(raw: bytes, host: str) -> None:
    """An empty host is the node that answered."""
    (found,) = [r async for r in replies(raw, commands=(("GET", "x"),))]
    assert isinstance(found, MovedError if b"MOVED" in raw else AskError)
    assert (found.host, found.port) == (host, 7001)
    assert found.node_addr == (host, 7001)


@pytest.mark.parametrize("raw", [b"-MOVED 5 ?:7001\r\n", b"-ASK 5 ?:7001\r\n"])
async def test_a_redirection_to_a_name_that_is_not_announced(raw: bytes) -> None:
    """Nobody connects to `?`."""
    (found,) = [r async for r in replies(raw, commands=(("GET", "x"),))]
    assert isinstance(found, HostUnknownError)


async def test_other_lists_are_left_alone() -> None:
    """Also after CLUSTER SLOTS was refused on this connection."""
    rows = b"*1\r\n*2\r\n$3\r\n1-0\r\n*0\r\n"
    commands = ((CLUSTER_SLOTS,), ("XRANGE", "x", "-", "+"))
    refusal, found = [r async for r in replies(b"-NOPERM no\r\n", rows, commands=commands)]
    assert isinstance(refusal, NoPermissionError)
    assert found == [[b"1-0", []]]


def test_tls_stays_tls() -> None:
    """The class of the URL decides."""
    assert node_connection(SSLConnection) is SSLNodeConnection
    assert issubclass(node_connection(NodeConnection), NodeConnection)
