"""uvicorn's HTTP/1.1 protocol with bounds: connections, time, size of a request's head, pipelined requests.

Requests that are not HTTP, or beyond a bound, get an answer in JSON. The connection is then closed after the client's
last byte: closing it with unread bytes would reset it, and the answer could be lost.
"""

import asyncio
from http import HTTPStatus

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from router.edge.http.connections import Connections

MAX_HEAD_BYTES = 16 << 10
_MAX_PIPELINED = 32


class _RefusedError(Exception):
    """Raised in a callback of the parser, so that it stops."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see the module."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        open_connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._open = open_connections
        self._in_head = self._in_body = self._lingers = False
        self._head_bytes = self._read_bytes = 0
        self._refusal: HTTPStatus | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Accept a new connection; the oldest one may be closed for it."""
        super().connection_made(transport)
        self._open.waits(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._open.closed(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse; nothing is read any more after a refusal."""
        if self._lingers:
            return
        self._read_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._read_bytes > MAX_HEAD_BYTES and not self._lingers:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            self.transport.abort()
            raise _RefusedError
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._open.waits(self)

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, or refuse it."""
        if self.parser.get_http_version() == "1.1" and not any(name == b"host" for name, _ in self.headers):
            raise _RefusedError
        self._in_head, self._in_body, self._read_bytes = False, True, 0
        if self.url[:1] not in (b"/", b"*") and httptools.parse_url(self.url).path is None:
            self.url = b"/"  # absolute form without a path
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client does not read its response: from now on it is waited for."""
        super().pause_writing()
        self._open.waits(self)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._served()

    def _served(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._open.serves(self)

    def on_message_complete(self) -> None:
        """End the request; its answer may already be sent."""
        self._in_body = False
        super().on_message_complete()
        self._served()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if not self.transport.is_closing():
            self._open.waits(self)
        super().on_response_complete()
        if self._refusal is not None and self._is_answered():
            self._answer_refusal(self._refusal)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that the parser or a bound refused; uvicorn calls it."""
        too_large = self._head_bytes > MAX_HEAD_BYTES
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _RefusedError

    def _is_answered(self) -> bool:
        """Whether every complete request has its answer."""
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _refuse(self, status: HTTPStatus) -> None:
        """Stop reading, and answer with this status after the answers to earlier requests."""
        self._lingers = True
        if self.transport.is_closing():
            return
        if self._in_body:  # this request has its answer, or will have it
            self.cycle.keep_alive = False
            if self._is_answered():
                self.transport.close()
        elif self._is_answered():
            self._answer_refusal(status)
        else:
            self._refusal = status

    def _answer_refusal(self, status: HTTPStatus) -> None:
        self._refusal = None
        if self.transport.is_closing():
            return
        body = orjson.dumps({"error": f"{status.phrase.lower()}: see RFC 9112"}) + b"\n"
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        try:
            if self.transport.get_write_buffer_size():
                self.transport.close()
            else:
                self.transport.write_eof()
        except OSError:  # the client has gone
            self.transport.abort()
