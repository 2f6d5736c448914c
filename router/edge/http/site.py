"""The application of the management port: fixed pages, GET and HEAD, gzip where the client takes it.

Handlers must not block. Request bodies are discarded. A handler that raises is a bug: the answer is 500, the bug is
logged, and the server continues.
"""

import gzip
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache

import orjson
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from router.telemetry import Event

_GZIP_FROM_BYTES = 1024

log = logging.getLogger("router.http")


class Response(Struct, frozen=True):
    """Answer of a handler."""

    status: int
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[], Response] | Callable[[], Awaitable[Response]]


def site(routes: Mapping[str, Handler]) -> Starlette:
    """Make the application that serves these paths."""
    pages = ", ".join(routes)
    words = {404: f"no such page; there is {pages}", 405: "only GET and HEAD are allowed"}

    async def refused(request: Request, fault: Exception) -> HttpResponse:
        if not isinstance(fault, HTTPException):
            raise fault
        answer = _problem(fault.status_code, words.get(fault.status_code, fault.detail))
        return _encoded(request, answer, fault.headers)

    endpoints = [Route(path, _endpoint(path, handler), methods=["GET"]) for path, handler in routes.items()]
    app = Starlette(routes=endpoints, exception_handlers={HTTPException: refused})
    app.router.redirect_slashes = False
    return app


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
