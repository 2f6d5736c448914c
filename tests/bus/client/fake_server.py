"""A NATS server that says what a test wants and records every byte that it gets, encrypted or not."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Self

_IDLE_S = 30


class FakeServer:
    """`async with FakeServer(…) as server`. `info` is added to its first line.

    `upgrade`: TLS after the first line, as servers do. `first`: TLS before it. `clear` holds what came in clear text
    behind the first line, `secret` what came encrypted. It has a thread per connection: with asyncio, a handshake that
    fails would end at different times.
    """

    def __init__(
        self,
        info: dict[str, Any] | None = None,
        *,
        upgrade: ssl.SSLContext | None = None,
        first: ssl.SSLContext | None = None,
    ) -> None:
        self.info = dict(info or {})
        self.upgrade, self.first = upgrade, first
        self.clear, self.secret = bytearray(), bytearray()
        self.accepted = 0
        self.ended = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """Its address, without a promise of TLS."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """Its address, with that promise."""
        return f"tls://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._start(self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close every connection and accept no other."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def drop(self) -> None:
        """Cut every connection."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    async def until(self, condition: Callable[[Self], bool], timeout_s: float = 20) -> None:
        """Wait until a condition on this server holds."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(_IDLE_S)
                self._open.append(connection)
                self.accepted += 1
                self._note()
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(connection):
            self._talk(connection)
        self.ended += 1
        self._note()

    def _talk(self, connection: socket.socket) -> None:
        heard = self.clear if self.first is None else self.secret
        if self.first is not None:
            connection = self.first.wrap_socket(connection, server_side=True)
            self._open.append(connection)
        line = {"server_id": "FAKE", "version": "2.11.0", "headers": True, "max_payload": 1 << 20, "nonce": "n" * 16}
        connection.sendall(b"INFO " + json.dumps(line | self.info).encode() + b"\r\n")
        if self.upgrade is not None:
            connection = self.upgrade.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            heard = self.secret
        with contextlib.closing(connection):
            while data := connection.recv(65536):
                heard += data
                self._note()
                if b"PING\r\n" in data:
                    connection.sendall(b"PONG\r\n")

    def _note(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)
