"""The HTTP port: three pages, strict and bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from prometheus_client import CollectorRegistry

from router.domain.degraded import Degradable
from router.edge.http import HttpServer, Response
from router.edge.pages import pages
from router.edge.readiness import Readiness
from router.telemetry import Telemetry


class Client:
    """A raw connection: what goes out and comes in is bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Write without waiting for an answer."""
        self.writer.write(data)

    async def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        first, *rest = head.decode().strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in rest)}
        length = int(headers.get("content-length", "0")) if body else 0
        return int(first.split()[1]), headers, await asyncio.wait_for(self.reader.readexactly(length), 5)

    async def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """One plain request."""
        self.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return await self.answer()

    async def closed(self) -> bytes:
        """What still came before the server closed."""
        return await asyncio.wait_for(self.reader.read(), 5)


class Pod:
    """A server with the three pages and one that is broken."""

    def __init__(self, *, timeout_s: float = 10.0, max_connections: int = 256) -> None:
        self.readiness = Readiness(["store", "bus"])
        self.overloaded = False
        routes = pages(
            "pod-1",
            "1.2.3",
            self.readiness,
            Telemetry(CollectorRegistry()),
            lambda: self.overloaded,
            lambda: {"open": True},
        )

        def broken() -> Response:
            raise RuntimeError("a bug")

        self.server = HttpServer({**routes, "/broken": broken}, timeout_s=timeout_s, max_connections=max_connections)
        self.port = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Client]:
        """A connection to it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def running(pod: Pod) -> AsyncIterator[Pod]:
    """The pod's server, listening."""
    pod.port = await pod.server.start("127.0.0.1", 0)
    try:
        yield pod
    finally:
        await pod.server.stop()


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    """A listening pod."""
    async with running(Pod()) as pod:
        yield pod


async def test_livez_is_ok_while_not_ready(pod: Pod) -> None:
    """A pod that waits for Redis must not be killed for it."""
    async with pod.connection() as client:
        status, headers, body = await client.get("/livez")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert orjson.loads(body) == {"status": "ok", "pod": "pod-1", "version": "1.2.3"}


async def test_readyz_says_why_not(pod: Pod) -> None:
    """503 with every reason, until all conditions hold; then 200, whatever is degraded; 503 again when one breaks."""
    pod.readiness.ok("bus")
    pod.readiness.not_ok("store", "no answer from Redis")
    async with pod.connection() as client:
        status, _, body = await client.get("/readyz")
        assert status == 503
        assert orjson.loads(body)["reasons"] == {"store": "no answer from Redis"}
        pod.readiness.ok("store")
        status, _, body = await client.get("/readyz")
        assert status == 200
        assert orjson.loads(body)["conditions"] == {"store": True, "bus": True}
        assert orjson.loads(body)["degraded"] == []
        pod.readiness.degrade(Degradable.DISPATCH, "stream ASSIGN is missing")
        status, _, body = await client.get("/readyz")
        assert status == 200
        assert orjson.loads(body)["degraded"] == ["dispatch"]
        assert orjson.loads(body)["degraded_reasons"] == {"dispatch": "stream ASSIGN is missing"}
        pod.readiness.not_ok("bus", "draining")
        assert (await client.get("/readyz"))[0] == 503


async def test_metrics_start_with_the_backpressure_flag(pod: Pod) -> None:
    """From the live input, in text format 0.0.4."""
    async with pod.connection() as client:
        _, headers, body = await client.get("/metrics")
        assert body.startswith(b"router_intake_backpressure_active 0\n")
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        pod.overloaded = True
        _, _, body = await client.get("/metrics")
    assert body.startswith(b"router_intake_backpressure_active 1\n")


async def test_a_query_string_is_no_part_of_the_path(pod: Pod) -> None:
    """Scrapers append parameters."""
    async with pod.connection() as client:
        assert (await client.get("/livez?verbose=1"))[0] == 200


async def test_pipelined_requests_are_answered_in_order(pod: Pod) -> None:
    """Two requests in one packet."""
    async with pod.connection() as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [(await client.answer())[0], (await client.answer())[0]] == [200, 503]


async def test_head_has_no_body(pod: Pod) -> None:
    """But the length that GET would have; the connection goes on."""
    async with pod.connection() as client:
        client.send(b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, _ = await client.answer(body=False)
        assert (status, int(headers["content-length"]) > 0) == (200, True)
        assert (await client.get("/livez"))[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"DELETE /livez HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (200 << 10) + b"\r\n\r\n", 431),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
)
async def test_every_bad_request_gets_one_clear_answer(pod: Pod, request_bytes: bytes, status: int) -> None:
    """And the server lives on."""
    async with pod.connection() as client:
        client.send(request_bytes)
        got, _, body = await client.answer()
        assert got == status
        assert orjson.loads(body)["error"]
    async with pod.connection() as client:
        assert (await client.get("/livez"))[0] == 200


async def test_a_body_is_not_taken_for_the_next_request(pod: Pod) -> None:
    """The connection ends after the answer."""
    async with pod.connection() as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\nGET /readyz HTTP/1.1\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed() == b""


async def test_an_answer_survives_a_body_that_nobody_reads(pod: Pod) -> None:
    """Closing over unread bytes would reset the connection before the client has the answer."""
    async with pod.connection() as client:
        client.send(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"a" * 4_000_000)
        await client.writer.drain()
        assert (await client.answer())[0] == 405


async def test_http_1_0_and_connection_close_are_honoured(pod: Pod) -> None:
    """Old probes do not keep alive."""
    for request in (b"GET /livez HTTP/1.0\r\n\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        async with pod.connection() as client:
            client.send(request)
            assert (await client.answer())[0] == 200
            assert await client.closed() == b""


async def test_a_slow_request_is_cut_off() -> None:
    """A head that never ends holds no connection."""
    async with running(Pod(timeout_s=0.05)) as pod, pod.connection() as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost")
        assert await client.closed() == b""


async def test_connections_are_bounded() -> None:
    """One more than allowed is closed; when one leaves, the next is served."""
    async with running(Pod(max_connections=1)) as pod:
        async with pod.connection() as first:
            await first.get("/livez")
            async with pod.connection() as second:
                assert await second.closed() == b""
        async with asyncio.timeout(5):
            while True:
                async with pod.connection() as third:
                    third.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if await third.closed():
                        break


async def test_stop_closes_idle_connections() -> None:
    """A drain does not wait for a scraper."""
    pod = Pod()
    pod.port = await pod.server.start("127.0.0.1", 0)
    async with pod.connection() as client:
        await client.get("/livez")
        await pod.server.stop()
        assert await client.closed() == b""
    await pod.server.stop()


async def test_a_taken_port_is_an_error(pod: Pod) -> None:
    """It is not silently another one."""
    with pytest.raises(OSError, match="address already in use"):
        await Pod().server.start("127.0.0.1", pod.port)
