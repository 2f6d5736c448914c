"""HTTP pages of a pod: /livez, /readyz, /metrics."""

from collections.abc import Callable

import orjson

from router.domain.json import JsonObject
from router.edge.http import Handler, Response
from router.edge.readiness import Readiness
from router.telemetry import CONTENT_TYPE, Telemetry, render


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
    0.0.4; its first line is the backpressure flag.
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

    def metrics() -> Response:
        return Response(200, render(telemetry.registry, backpressure_active=backpressure_active()), CONTENT_TYPE)

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics}
