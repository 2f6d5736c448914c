"""A client for HTTP that sends and receives bytes, for tests of the server."""

import asyncio
import ssl
from typing import Any, Self

import orjson
from msgspec import Struct


class HttpReply(Struct, frozen=True):
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return str(self.json["error"]["code"])


class HttpClient:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """Connect to a port of this machine."""
        name = "127.0.0.1" if tls is not None else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def reply(self) -> HttpReply:
        """Return the next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)
        first, *rest = head.decode().strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in rest)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", "0"))), 30)
        return HttpReply(int(first.split()[1]), headers, body)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        """Send a request. Underscores in header names stand for hyphens."""
        sent = {"host": "127.0.0.1", "content-length": str(len(body))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    async def ask(self, method: str, path: str, body: object = b"", **headers: str) -> HttpReply:
        """Send a request and return its response."""
        self.send(method, path, body if isinstance(body, bytes) else orjson.dumps(body), **headers)
        return await self.reply()
