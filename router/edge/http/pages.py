"""HTTP pages of a pod: /livez, /readyz, /metrics."""

import asyncio
from collections.abc import Callable

import orjson

from router.domain.json import JsonObject
from router.edge.http.site import Handler, Response
from router.edge.readiness import Readiness
from router.telemetry import CONTENT_TYPE, Telemetry, render


class OncePerSecond:
    """A text that is rendered at most once a second: rendering takes milliseconds of the pod's only loop.

    A caller within a second after a rendering waits for the next one, which all waiting callers share. So no caller
    gets an old text.
    """

    def __init__(self, render: Callable[[], bytes], every_s: float = 1.0) -> None:
        self._render = render
        self._every_s = every_s
        self._next_at = float("-inf")
        self._next: asyncio.Future[bytes] | None = None

    async def text(self) -> bytes:
        """Return a text that was rendered after this call."""
        loop = asyncio.get_running_loop()
        if self._next is None:
            if loop.time() >= self._next_at:
                self._next_at = loop.time() + self._every_s
                return self._render()
            self._next = loop.create_future()
            loop.call_at(self._next_at, self._render_shared, self._next)
        return await asyncio.shield(self._next)  # a caller that leaves must not cancel the rendering for the others

    def _render_shared(self, shared: "asyncio.Future[bytes]") -> None:
        self._next, self._next_at = None, asyncio.get_running_loop().time() + self._every_s
        try:
            shared.set_result(self._render())
        except Exception as fault:  # every waiting caller gets it
            shared.set_exception(fault)


def pages(
    pod: str,
    version: str,
    readiness: Readiness,
    telemetry: Telemetry,
    backpressure_active: Callable[[], bool],
    gate: Callable[[], JsonObject],
) -> dict[str, Handler]:
    """The routes for `HttpServer`.

    /livez answers 200 as long as the event loop runs. /readyz answers 200 or 503, with all conditions, the reasons of
    those that fail, the parts that are off (`degraded`), and the state of the CP gate. /metrics uses text format
    0.0.4; its first line is the backpressure flag. It is rendered at most once a second.
    """

    def livez() -> Response:
        return Response(200, orjson.dumps({"status": "ok", "pod": pod, "version": version}) + b"\n")

    def readyz() -> Response:
        ready, degraded = readiness.ready, readiness.degraded()
        body = {
            "status": "ready" if ready else "not ready",
            "pod": pod,
            "reasons": readiness.reasons(),
            "conditions": {name: c.ok for name, c in readiness.states().items()},
            "degraded": sorted(degraded),
            "degraded_reasons": {part.value: reason for part, reason in degraded.items()},
            "gate": gate(),
        }
        return Response(200 if ready else 503, orjson.dumps(body) + b"\n")

    rendered = OncePerSecond(lambda: render(telemetry.registry, backpressure_active=backpressure_active()))

    async def metrics() -> Response:
        return Response(200, await rendered.text(), CONTENT_TYPE)

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics}
