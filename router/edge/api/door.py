"""The application of the API port: what is posted as a plain ASGI callable, all else by Starlette.

A decide request passes no router and no middleware, because these cost more CPU than reading it.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from router.domain.api_key import Asker
from router.domain.decide.decision import Code, Intake, Refused
from router.edge.api.decide import DecideRoutes
from router.edge.api.decisions import DecisionRoutes
from router.edge.api.messages import (
    MAX_BODY_BYTES,
    ClientGone,
    Reply,
    TooLarge,
    headers_of,
    read_body,
    refused,
    send_reply,
)
from router.edge.api.results import ResultRoutes
from router.edge.api.tasks import TaskRoutes
from router.telemetry import Event

log = logging.getLogger("router.http")

_PATHS = (
    "POST /v1/decide",
    "POST /v1/decide/batch",
    "POST /v1/tasks",
    "GET /v1/tasks/{id}",
    "POST /v1/results",
    "GET /v1/decisions/{id}",
)
_TOO_LARGE = Refused(
    Code.INVALID_REQUEST,
    f"the body has more than {MAX_BODY_BYTES:,} bytes: store the payload elsewhere and send its payload_ref",
    {"intake_error_code": Intake.PAYLOAD_TOO_LARGE.value},
)
_NOT_JSON = Refused(Code.INVALID_REQUEST, "the body must be JSON: send the header `content-type: application/json`")
_BUG = Refused(Code.INTERNAL, "the request failed; see the router's log")


class Askers(Protocol):
    """Who sends a request."""

    async def asker(self, headers: Mapping[str, str]) -> Asker | Reply:
        """Return who sends it, or the refusal."""


LookUp = Callable[[Asker, str, str | None], Awaitable[Reply]]
Post = Callable[[Asker, Mapping[str, str], bytes], Awaitable[Reply]]


class Door:
    """The ASGI application. `count(route, status)` is called for each reply; `pod`: the header `router-pod`.

    `json_only`: bodies must say that they are JSON. `origins`: web pages that may ask (CORS).
    """

    def __init__(
        self,
        askers: Askers,
        decide: DecideRoutes,
        decisions: DecisionRoutes,
        results: ResultRoutes,
        tasks: TaskRoutes,
        *,
        pod: str,
        count: Callable[[str, int], None],
        json_only: bool = False,
        origins: Iterable[str] = (),
    ) -> None:
        self._askers = askers
        self._look_ups: dict[str, LookUp] = {"/v1/decisions/{id}": decisions.by_id, "/v1/tasks/{id}": tasks.by_id}
        self._pod = ((b"router-pod", pod.encode()),)
        self._count = count
        self._json_only = json_only
        self._posts: dict[str, Post] = {
            "/v1/decide": decide.decide,
            "/v1/decide/batch": decide.batch,
            "/v1/tasks": tasks.push,
            "/v1/results": results.report,
        }
        self._rest = self._application()
        app: ASGIApp = self._serve
        allowed = list(origins)
        if allowed:
            app = CORSMiddleware(app, allow_origins=allowed, allow_methods=["*"], allow_headers=["*"])
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        post = self._posts.get(scope["path"]) if scope["method"] == "POST" else None
        if post is None:
            await self._rest(scope, receive, send)
            return
        try:
            reply = await self._posted(post, headers_of(scope), receive)
        except ClientGone:
            return
        self._count(scope["path"], reply.status)
        await send_reply(send, reply, self._pod)

    async def _posted(self, post: Post, headers: Mapping[str, str], receive: Receive) -> Reply:
        asker = await self._askers.asker(headers)
        if isinstance(asker, Reply):
            return asker
        if self._json_only and headers.get("content-type", "").partition(";")[0].strip().lower() not in _NOT_SIMPLE:
            return refused(_NOT_JSON, 415)
        try:
            return await post(asker, headers, await read_body(headers, receive))
        except TooLarge:
            # The server discards the rest. A connection closed with unread bytes would be reset, and the answer lost.
            return refused(_TOO_LARGE, 413)
        except ClientGone:
            raise
        except Exception:  # a bug must not leave the client without an answer
            log.exception("bug: an HTTP request could not be answered", extra={"event": Event.HTTP_FAULT})
            return refused(_BUG)

    def _application(self) -> Starlette:
        async def fault(request: Request, error: Exception) -> HttpResponse:
            if not isinstance(error, HTTPException):
                raise error
            there_is = f"there is {', '.join(_PATHS)}"
            words = {404: f"no such page: {there_is}", 405: f"this method is not allowed here: {there_is}"}
            refusal = Refused(Code.INVALID_REQUEST, words.get(error.status_code, error.detail))
            self._count("other", error.status_code)
            return self._response(refused(refusal, error.status_code), error.headers)

        routes = [Route(path, self._look_up(path, by_id), methods=["GET"]) for path, by_id in self._look_ups.items()]
        routes += [Route(path, _never, methods=["POST"]) for path in self._posts]
        app = Starlette(routes=routes, exception_handlers={HTTPException: fault})
        app.router.redirect_slashes = False
        return app

    def _look_up(self, path: str, by_id: LookUp) -> Callable[[Request], Awaitable[HttpResponse]]:
        async def endpoint(request: Request) -> HttpResponse:
            tenant = request.query_params.get("tenant")
            return await self._answered(request, path, lambda asker: by_id(asker, request.path_params["id"], tenant))

        return endpoint

    async def _answered(
        self, request: Request, route: str, answer: Callable[[Asker], Awaitable[Reply]]
    ) -> HttpResponse:
        asker = await self._askers.asker(headers_of(request.scope))
        try:
            reply = asker if isinstance(asker, Reply) else await answer(asker)
        except Exception:  # a bug must not leave the client without an answer
            log.exception("bug: an HTTP request could not be answered", extra={"event": Event.HTTP_FAULT})
            reply = refused(_BUG)
        self._count(route, reply.status)
        return self._response(reply)

    def _response(self, reply: Reply, more: Mapping[str, str] | None = None) -> HttpResponse:
        headers = {name.decode(): value.decode() for name, value in (*reply.headers, *self._pod)}
        headers |= {"content-type": reply.content_type.decode(), "cache-control": "no-store", **(more or {})}
        return HttpResponse(reply.body, reply.status, headers)


# Types that a web page can only send after the server has allowed it.
_NOT_SIMPLE = ("application/json", "application/x-protobuf")


async def _never(request: Request) -> HttpResponse:
    """Stands for the paths that `Door` serves itself: Starlette answers other methods there."""
    raise AssertionError("a decide request came to Starlette")
