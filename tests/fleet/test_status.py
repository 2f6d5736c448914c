"""What a fleet tells of itself: backpressure, /metrics, logs, traces, and old gateways' error codes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fleet.conftest import Own
from tests.fleet.foreign import BACKPRESSURE, GET_DECISION, Foreign, task
from tests.fleet.harness import PLAIN, Fleet

LIMITED = PLAIN | {"limits": [{"id": "one", "scope": "tenant", "resource": "requests", "limit": 1, "window": "60s"}]}


async def test_backpressure_is_answered_in_its_form(fleet: Fleet, caller: Foreign) -> None:
    """Every field of a backpressure reply, whatever the body."""
    for body in (b"{}", b"", b"\xff"):
        reply = (await caller.raw(body, subject=BACKPRESSURE)).body
        assert reply["success"] is True
        data = reply["data"]
        assert data["status"] in {"inactive", "warning", "active", "unknown"}
        assert set(data["metrics"]) == {"pending_messages", "latency_p95_ms", "inflight_messages"}
        assert data["thresholds"] == {"queue_overload": 1000, "latency_overload_ms": 5000, "inflight_overload": 921}
        assert set(data["policy"]) == {"retry_after_seconds", "max_retry_attempts"}
        assert data["timestamp"]


async def test_the_first_line_of_metrics_is_the_backpressure_flag(fleet: Fleet) -> None:
    """An existing gateway reads only that."""
    _, body = await fleet.pods[0].http("/metrics")
    assert body.splitlines()[0] == b"router_intake_backpressure_active 0"


async def test_answers_are_counted(fleet: Fleet, caller: Foreign) -> None:
    """Every answer, over both pods, decisions and refusals."""
    tenant = await fleet.tenant()
    before = await fleet.total("router_decisions_total")
    await caller.all([task(tenant) for _ in range(50)])
    await caller.all([task(tenant, "same")] * 10)
    await caller.ask(task("nobody"))
    await caller.raw(b"nonsense")
    assert await fleet.total("router_decisions_total") == before + 62


async def test_logs_are_json_with_the_trace_id(own: Own) -> None:
    """Every log line is one JSON object that names the pod."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": PLAIN}})
    await caller.ask(task("acme"))
    await fleet.pods[0].stop()
    lines = [orjson.loads(x) for x in fleet.pods[0].log.read_bytes().splitlines()]
    assert lines
    assert {x["pod"] for x in lines} == {"pod-1"}
    assert all({"level", "message"} <= set(x) for x in lines)


async def test_old_gateways_get_codes_they_know(own: Own) -> None:
    """ROUTER_LEGACY_ERROR_CODES: 429 and 503 kinds as extension_unavailable, the true code in details.code."""
    policies = {"acme": {"default": LIMITED}}
    _, caller = await own(pods=1, policies=policies, env={"ROUTER_LEGACY_ERROR_CODES": "true"})
    assert (await caller.ask(task("acme"))).ok
    error = (await caller.ask(task("acme"))).error
    assert (error["code"], error["details"]["code"]) == ("extension_unavailable", "rate_limit_exceeded")
    assert error["details"]["retry_after_ms"] > 0
    assert (await caller.raw(b"")).error["code"] == "invalid_request"
    unknown = (await caller.ask({"tenant_id": "acme", "request_id": "no"}, subject=GET_DECISION)).error
    assert (unknown["code"], unknown["details"]["code"]) == ("policy_not_found", "decision_not_found")


async def test_old_gateways_know_the_codes_of_admin_acts_too(own: Own) -> None:
    """More acts at once than a pod serves: extension_unavailable, with the true code and when to come back."""
    _, caller = await own(pods=1, env={"ROUTER_LEGACY_ERROR_CODES": "true"})
    asked = [await caller.send(b"{}", subject="beamline.router.v1.admin.get_extension_health") for _ in range(200)]
    replies = [reply.body for reply in await asyncio.gather(*asked)]
    shed = [reply["error"] for reply in replies if not reply["ok"]]
    assert 0 < len(shed) < 200
    assert {e["code"] for e in shed} == {"extension_unavailable"}
    assert {e["details"]["code"] for e in shed} == {"service_overloaded"}
    assert all(e["details"]["retry_after_ms"] > 0 for e in shed)


async def test_decides_are_traced(own: Own) -> None:
    """A decide is a span in the caller's trace, sent to the collector; the assignment carries it on."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with collector() as (url, requests):
        env = {"ROUTER_OTLP_ENDPOINT": url, "ROUTER_TRACE_SAMPLE_RATIO": "1"}
        fleet, caller = await own(pods=1, policies={"acme": {"default": PLAIN}}, env=env)
        assigned = await caller.watch("caf.exec.assign.v1")
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        assert (await caller.ask(task("acme", "r-traced", push_assignment=True), headers)).ok
        await assigned.one(request_id="r-traced")
        await fleet.pods[0].stop()
        (span,) = [s for s in _spans(requests) if s.trace_id.hex() == trace]
    assert span.parent_span_id.hex() == parent
    assert {a.key: a.value.string_value for a in span.attributes}["request_id"] == "r-traced"
    assert assigned.headers[0]["traceparent"] == f"00-{trace}-{span.span_id.hex()}-01"


def _spans(requests: list[bytes]) -> list[Span]:
    exports = [ExportTraceServiceRequest.FromString(data) for data in requests]
    return [s for e in exports for r in e.resource_spans for scope in r.scope_spans for s in scope.spans]


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP collector that keeps the bodies it gets."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:] if b": " in line)
            data = await reader.readexactly(int(fields[b"content-length"]))
            bodies.append(_unzipped(data) if fields.get(b"content-encoding") == b"gzip" else data)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies


def _unzipped(data: bytes) -> bytes:
    import gzip  # noqa: PLC0415 - only when the exporter compresses

    return gzip.decompress(data)
