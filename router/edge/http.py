"""A small HTTP/1.1 server on h11: GET and HEAD, keep-alive, bounded headers, no request bodies.

Handlers are synchronous and must not block. Limits: 16 KiB of request head, `timeout_s` for a request or an idle
connection, `max_connections` at once (further ones are closed). A handler that raises is a bug: the answer is 500, the
bug is logged, and the server goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

import h11
from msgspec import Struct

from router.telemetry import Event

MAX_HEAD_BYTES = 16 << 10
_READ_BYTES = 4 << 10

log = logging.getLogger("router.http")


class Response(Struct, frozen=True):
    """Answer of a handler."""

    status: int
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[], Response]


class HttpServer:
    """Serves fixed paths. `start` listens; `stop` closes all connections."""

    def __init__(self, routes: Mapping[str, Handler], *, timeout_s: float = 10.0, max_connections: int = 256) -> None:
        self._routes = dict(routes)
        self._timeout_s, self._max_connections = timeout_s, max_connections
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. With `port` 0 the system chooses a free one.

        :raises OSError: the address cannot be bound.
        """
        self._server = await asyncio.start_server(self._accepted, host, port, limit=MAX_HEAD_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        log.info("listening on %s:%d", host, bound, extra={"event": Event.HTTP_LISTENING, "port": bound})
        return bound

    async def stop(self) -> None:
        """Stop listening and close every connection; idempotent."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A slow or disconnected peer gets no error answer.
            with suppress(TimeoutError, ConnectionError):
                await self._converse(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        while True:
            async with asyncio.timeout(self._timeout_s):
                try:
                    request = await _next_request(protocol, reader)
                except h11.RemoteProtocolError as e:
                    if protocol.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                        status = e.error_status_hint if 400 <= e.error_status_hint < 600 else 400
                        await _send(protocol, writer, _problem(status, str(e)), head=False, close=True)
                        await _linger(reader, writer)
                    return
                if request is None:
                    return
                response = self._answer(request)
                head = request.method == b"HEAD"
                # Bodies are not read. A request with one ends the connection, or its body would be read as a request.
                close = protocol.their_state is not h11.DONE
                await _send(protocol, writer, response, head=head, close=close)
                if close:
                    await _linger(reader, writer)
            if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                return
            protocol.start_next_cycle()

    def _answer(self, request: h11.Request) -> Response:
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        handler = self._routes.get(path)
        if handler is None:
            return _problem(404, f"no such page; there is {', '.join(self._routes)}")
        if request.method not in {b"GET", b"HEAD"}:
            return _problem(405, "only GET and HEAD are allowed")
        try:
            return handler()
        except Exception:  # a bug in one page must not stop the others
            log.exception("HTTP handler of %s failed", path, extra={"event": Event.HTTP_FAULT})
            return _problem(500, "internal error; see the pod's log")


async def _next_request(protocol: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read the next request with its (empty) body; None: the peer closed the connection."""
    request: h11.Request | None = None
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.ConnectionClosed):
            return None
        elif request is not None:
            return request


async def _send(
    protocol: h11.Connection, writer: asyncio.StreamWriter, response: Response, *, head: bool, close: bool
) -> None:
    headers = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        ("cache-control", "no-store"),
    ]
    if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("allow", "GET, HEAD"))
    if close:
        headers.append(("connection", "close"))
    out = protocol.send(h11.Response(status_code=response.status, headers=headers)) or b""
    if not head:
        out += protocol.send(h11.Data(data=response.body)) or b""
    out += protocol.send(h11.EndOfMessage()) or b""
    writer.write(out)
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the peer closes: closing over unread bytes resets the connection, and the answer may be lost."""
    if writer.can_write_eof():
        writer.write_eof()
    while await reader.read(_READ_BYTES):
        pass


def _problem(status: int, message: str) -> Response:
    text = message.replace("\\", " ").replace('"', "'")
    return Response(status, b'{"error":"%s"}\n' % text.encode("ascii", "replace"))
