"""Requests to an HTTP/1.1 server over connections that stay open, as many as are under way at once."""

import asyncio

from bench.processes import HOST


class HttpClient:
    """A pool of connections to one port. A connection that fails is dropped."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, key: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of a POST with a bearer key.

        :raises OSError: the server is not there, or went away.
        """
        fields = f"Host: bench\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        connection = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._port)
        reader, writer = connection
        try:
            writer.write(f"POST {path} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await _answer(reader)
        except (OSError, asyncio.IncompleteReadError) as fault:
            writer.close()
            raise ConnectionError(f"port {self._port}: {fault!r}") from fault
        except BaseException:
            writer.close()
            raise
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connections that are idle."""
        for _, writer in self._idle:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:] if line)
    if fields.get("transfer-encoding") == "chunked":
        return status, await _chunks(reader)
    return status, await reader.readexactly(int(fields.get("content-length", "0")))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        found += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return found
