"""The HTTP port: three pages, strict and bounded."""

import asyncio
import contextlib
import gzip
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from router.domain.degraded import Degradable
from router.edge.http.listen import raise_open_files
from router.edge.http.pages import OncePerSecond, pages
from router.edge.http.server import HttpServer
from router.edge.http.site import Response, site
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

    def __init__(self, *, timeout_s: float = 10.0, max_connections: int = 2048) -> None:
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

        self.server = HttpServer(
            site({**routes, "/broken": broken}), timeout_s=timeout_s, max_connections=max_connections
        )
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
    pod.readiness.not_ok("store", reason="no answer from Redis")
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
        pod.readiness.not_ok("bus", reason="draining")
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
    """It is discarded, whole or in parts, and the next request is the one after it."""
    body = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with pod.connection() as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:9])
        assert (await client.answer())[0] == 200
        client.send(body[9:] + b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer())[0] == 404
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert (await client.get("/livez"))[0] == 200


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


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nHost",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nhalf",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk", "one request, then nothing"],
)
async def test_a_connection_that_waits_too_long_is_closed(sent: bytes) -> None:
    """Head, body and idle connections alike; one byte now and then keeps none."""
    async with running(Pod(timeout_s=0.5)) as pod, pod.connection() as client:
        began = asyncio.get_running_loop().time()
        client.send(sent)
        async with asyncio.timeout(5):
            while not client.reader.at_eof():
                if sent[-4:] not in (b"", b"\r\n\r\n"):
                    client.send(b"x")
                with contextlib.suppress(TimeoutError, ConnectionError):
                    await asyncio.wait_for(client.reader.read(65536), 0.05)
        assert asyncio.get_running_loop().time() - began >= 0.4


async def test_the_oldest_idle_connection_goes() -> None:
    """Not the newest: the one that has waited longest is closed, the others and the new one are served."""
    async with running(Pod(max_connections=3)) as pod, AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(pod.connection()) for _ in range(3)]
        for client in (first, second, third, first):
            await client.get("/livez")
        fourth = await stack.enter_async_context(pod.connection())
        assert (await fourth.get("/livez"))[0] == 200
        assert await second.closed() == b""
        for client in (first, third, fourth):
            assert (await client.get("/livez"))[0] == 200


@pytest.mark.heavy
@pytest.mark.parametrize("maximum", [50, 2048])
@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez HTTP/1.1\r\nHo", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["idle", "half", "kept"]
)
async def test_probes_are_answered_while_a_thousand_connections_are_held(maximum: int, sent: bytes) -> None:
    """Each within a second, on a connection of its own, below the bound and at it."""
    raise_open_files()
    async with running(Pod(max_connections=maximum)) as pod, AsyncExitStack() as stack:
        for _ in range(1000):
            client = await stack.enter_async_context(pod.connection())
            client.send(sent)
        for _ in range(10):
            began = asyncio.get_running_loop().time()
            async with pod.connection() as probe:
                assert (await probe.get("/livez"))[0] == 200
            assert asyncio.get_running_loop().time() - began < 1


async def test_clients_that_hang_up_leave_no_trace(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """Before, within and after a request, with a reset or without: no log line, and no exception of the loop."""
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    caplog.clear()
    try:
        for number in range(120):
            raw = socket.create_connection(("127.0.0.1", pod.port))
            if number % 2:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sent = (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"nonsense\r\n\r\n", b"GET /li", b"")[number % 4]
            raw.sendall(sent)
            raw.close()
        for _ in range(20):
            async with pod.connection() as client:
                assert (await client.get("/livez"))[0] == 200
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert faults == []
    assert [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("target", ["http://pod-1:8080/livez", "HTTP://pod-1/livez?x=1", "/livez?a=b%20c", "/%6civez"])
async def test_targets_in_every_form(pod: Pod, target: str) -> None:
    """Absolute form as for proxies, with a query, with escapes."""
    async with pod.connection() as client:
        assert (await client.get(target))[0] == 200


@pytest.mark.parametrize("target", ["http://pod-1", "http://pod-1/", "*", "/livez/", "//livez", "/livez/../readyz"])
async def test_other_targets_are_no_pages(pod: Pod, target: str) -> None:
    """404, and the connection goes on."""
    async with pod.connection() as client:
        assert (await client.get(target))[0] == 404
        assert (await client.get("/livez"))[0] == 200


async def test_a_client_that_asks_before_its_body_gets_the_answer(pod: Pod) -> None:
    """`Expect: 100-continue`: the final answer at once, and the connection ends, since the body may come or not."""
    async with pod.connection() as client:
        client.send(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (405, "close")
        assert await client.closed() == b""
    async with pod.connection() as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nope"])
async def test_head_says_what_get_does(pod: Pod, path: str) -> None:
    """The same status and headers, apart from the moment."""
    async with pod.connection() as client:
        got, headers, _ = await client.get(path)
        client.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, head, _ = await client.answer(body=False)
        assert status == got
        assert set(head) == set(headers)
        assert head["content-type"] == headers["content-type"]
        assert (await client.get("/livez"))[0] == 200


GZIP = {
    "gzip": True,
    "deflate, gzip;q=1.0, *;q=0.5": True,
    "GZip": True,
    "x-gzip": True,
    "*": True,
    "gzip;q=0.001": True,
    "": False,
    "identity": False,
    "gzip;q=0": False,
    "gzip;q=0.0, *": False,
    "*;q=0": False,
    "gzip;q=nonsense": False,
    "br, deflate": False,
    "not-gzip": False,
}


@pytest.mark.parametrize("accepted", GZIP)
async def test_metrics_are_compressed_for_who_accepts_it(pod: Pod, accepted: str) -> None:
    """By the weights of Accept-Encoding; caches are told; HEAD alike; small pages never."""
    header = f"Accept-Encoding: {accepted}\r\n" if accepted else ""
    async with pod.connection() as client:
        client.send(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        _, headers, body = await client.answer()
        assert headers["vary"] == "accept-encoding"
        assert (headers.get("content-encoding") == "gzip") is GZIP[accepted]
        text = gzip.decompress(body) if GZIP[accepted] else body
        assert text.startswith(b"router_intake_backpressure_active 0\n")
        client.send(f"HEAD /metrics HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        _, head, _ = await client.answer(body=False)
        assert (head.get("content-encoding") == "gzip") is GZIP[accepted]
        client.send(f"GET /livez HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        assert "content-encoding" not in (await client.answer())[1]


async def test_metrics_are_rendered_once_a_second() -> None:
    """Twenty clients in a loop: they share renderings, and nobody gets a text from before the request."""
    rendered: list[float] = []
    loop = asyncio.get_running_loop()

    def render() -> bytes:
        rendered.append(loop.time())
        return repr(loop.time()).encode()

    shared = OncePerSecond(render, every_s=0.2)

    async def scrape(until: float) -> int:
        count = 0
        while loop.time() < until:
            asked = loop.time()
            assert float(await shared.text()) >= asked
            count += 1
        return count

    counts = await asyncio.gather(*(scrape(loop.time() + 1.5) for _ in range(20)))
    assert min(counts) >= 2
    gaps = [later - earlier for earlier, later in itertools.pairwise(rendered)]
    assert min(gaps) >= 0.19


async def test_a_fault_of_a_page_reaches_all_who_wait() -> None:
    """And the next rendering is tried again."""
    outcomes: Iterator[bytes | Exception] = iter([b"first", RuntimeError("a bug"), b"third"])

    def render() -> bytes:
        made = next(outcomes)
        if isinstance(made, Exception):
            raise made
        return made

    shared = OncePerSecond(render, every_s=0.05)
    assert await shared.text() == b"first"
    faults = await asyncio.gather(shared.text(), shared.text(), return_exceptions=True)
    assert [type(f) for f in faults] == [RuntimeError, RuntimeError]
    assert await shared.text() == b"third"


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
