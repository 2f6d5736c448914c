"""The HTTP port: uvicorn with httptools and Starlette, in the pod's loop. GET and HEAD, keep-alive, bounded in all.

Handlers must not block. Limits: 16 KiB of request head, `timeout_s` for a request or an idle connection,
`max_connections` at once (`router.edge.connections` says which one goes). Request bodies are discarded. A handler that
raises is a bug: the answer is 500, the bug is logged, and the server continues.
"""

import asyncio
import contextlib
import gzip
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache, partial

import orjson
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from router.edge.connections import Connections
from router.edge.http_protocol import BoundedProtocol
from router.edge.listen import listening_socket, raise_open_files
from router.telemetry import Event

_BACKLOG = 256
_GZIP_FROM_BYTES = 1024

log = logging.getLogger("router.http")


class Response(Struct, frozen=True):
    """Answer of a handler."""

    status: int
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[], Response] | Callable[[], Awaitable[Response]]


class HttpServer:
    """Serves fixed paths. `start` listens; `stop` closes all connections.

    At most `max_connections` are open, and at most as many as half of the files that the process may open: raised to
    its hard bound, so that NATS and Redis have theirs.
    """

    def __init__(self, routes: Mapping[str, Handler], *, timeout_s: float = 10.0, max_connections: int = 2048) -> None:
        self._routes = dict(routes)
        self._timeout_s, self._max_connections = timeout_s, max_connections
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. With `port` 0 the system chooses a free one.

        :raises OSError: the address cannot be bound.
        """
        files = raise_open_files()
        maximum = self._max_connections if files is None else max(1, min(self._max_connections, files // 2))
        opened = listening_socket(host, port, backlog=_BACKLOG)
        address, bound = opened.getsockname()[:2]
        connections = Connections(maximum, self._timeout_s, asyncio.get_running_loop().time)
        config = uvicorn.Config(
            self._application(),
            # A factory in place of the class: uvicorn only calls it.
            http=partial(BoundedProtocol, open_connections=connections),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # no log lines about clients' mistakes
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=int(self._timeout_s) + 1,  # `connections` cuts earlier
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config, connections)
        self._serving = asyncio.create_task(self._server.serve([opened]), name="http")
        shown = f"[{address}]" if ":" in address else address
        log.info(
            "listening on %s:%d, %d connections", shown, bound, maximum, extra=_fields(Event.HTTP_LISTENING, bound)
        )
        return int(bound)

    async def stop(self) -> None:
        """Stop listening and close every connection; idempotent."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.gather(self._serving, return_exceptions=True)
            self._server = self._serving = None

    def _application(self) -> Starlette:
        pages = ", ".join(self._routes)
        words = {404: f"no such page; there is {pages}", 405: "only GET and HEAD are allowed"}

        async def refused(request: Request, fault: Exception) -> HttpResponse:
            if not isinstance(fault, HTTPException):
                raise fault
            answer = _problem(fault.status_code, words.get(fault.status_code, fault.detail))
            return _encoded(request, answer, fault.headers)

        routes = [Route(path, _endpoint(path, handler), methods=["GET"]) for path, handler in self._routes.items()]
        app = Starlette(routes=routes, exception_handlers={HTTPException: refused})
        app.router.redirect_slashes = False
        return app


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the pod has its own."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Cut connections that have waited too long; uvicorn calls it ten times a second."""
        self._connections.cut_late()
        return await super().on_tick(counter)


def _fields(event: Event, port: int) -> dict[str, object]:
    return {"event": event, "port": port}


def _endpoint(path: str, handler: Handler) -> Callable[[Request], Awaitable[HttpResponse]]:
    async def endpoint(request: Request) -> HttpResponse:
        try:
            result = handler()
            answer = result if isinstance(result, Response) else await result
        except Exception:  # a bug in one page must not stop the other pages
            log.exception("HTTP handler of %s failed", path, extra={"event": Event.HTTP_FAULT})
            answer = _problem(500, "internal error; see the pod's log")
        return _encoded(request, answer)

    return endpoint


def _encoded(request: Request, answer: Response, more: Mapping[str, str] | None = None) -> HttpResponse:
    headers = {"content-type": answer.content_type, "cache-control": "no-store", **(more or {})}
    if "expect" in request.headers:
        headers["connection"] = "close"  # the body may come after this answer, or never
    body = answer.body
    if len(body) >= _GZIP_FROM_BYTES:
        headers["vary"] = "accept-encoding"
        if accepts_gzip(",".join(request.headers.getlist("accept-encoding"))):
            headers["content-encoding"] = "gzip"
            body = _gzipped(body)
    return HttpResponse(body, answer.status, headers)


@lru_cache(maxsize=2)
def _gzipped(body: bytes) -> bytes:
    """Compress a body once for all scrapers that read it within a second."""
    return gzip.compress(body, compresslevel=1, mtime=0)


def accepts_gzip(header: str) -> bool:
    """Whether a value of `Accept-Encoding` allows gzip (RFC 9110, 12.5.3): named with a weight above 0, or by `*`."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[coding] = weight
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _problem(status: int, message: str) -> Response:
    return Response(status, orjson.dumps({"error": message}) + b"\n")
