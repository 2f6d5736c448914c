"""The HTTP port of a real pod: probes under thousands of connections, scrapers beside decisions, both IP families."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from router.edge.http.listen import raise_open_files
from tests.fleet.conftest import Own
from tests.fleet.foreign import Foreign, task
from tests.fleet.harness import PLAIN, Pod

ACME = {"acme": {"default": PLAIN}}
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n"


@asynccontextmanager
async def connected(pod: Pod, host: str = "127.0.0.1") -> AsyncIterator[Streams]:
    """One connection."""
    reader, writer = await asyncio.open_connection(host, pod.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def probed(pod: Pod, host: str = "127.0.0.1") -> float:
    """Ask /livez as a kubelet does, on a connection of its own; the seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(5), connected(pod, host) as (reader, writer):
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    return time.monotonic() - began


@pytest.mark.parametrize("bound", ["2048", "300"])
async def test_probes_are_answered_under_a_thousand_connections(own: Own, bound: str) -> None:
    """A third idle, a third half sent, a third kept alive with requests now and then: every probe within a second."""
    raise_open_files()
    fleet, _ = await own(pods=1, env={"ROUTER_HTTP_MAX_CONNECTIONS": bound})
    pod = fleet.pods[0]
    async with AsyncExitStack() as stack:
        kept: list[asyncio.StreamWriter] = []
        for number in range(1000):
            _, writer = await stack.enter_async_context(connected(pod))
            writer.write((b"", GET[:-6], GET)[number % 3])
            kept += [writer] if number % 3 == 2 else []
        for _ in range(5):
            for writer in kept:
                writer.write(GET)
            assert await probed(pod) < 1
            assert (await pod.readyz())[0] == 200
    assert b"Traceback" not in pod.log.read_bytes()


async def test_clients_that_hang_up_leave_no_traceback(own: Own) -> None:
    """As pollers with a short timeout do: the request is sent, and the connection is gone before the answer."""
    fleet, _ = await own(pods=1)
    pod = fleet.pods[0]
    before = len(pod.log.read_bytes().splitlines())
    for number in range(200):
        raw = socket.create_connection(("127.0.0.1", pod.port))
        raw.sendall((b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"broken\r\n\r\n", GET, GET[:9])[number % 4])
        raw.close()
    assert await probed(pod) < 5
    assert pod.log.read_bytes().splitlines()[before:] == []


async def test_scrapers_in_a_loop_leave_decisions_alone(own: Own) -> None:
    """Twenty clients scrape as fast as they can: the median decision takes no longer than 25 ms."""
    fleet, caller = await own(pods=1, policies=ACME)
    pod = fleet.pods[0]
    scraping = [asyncio.create_task(_scrape(pod)) for _ in range(20)]
    try:
        times = sorted([await _decide(caller) for _ in range(100)])
    finally:
        for scraper in scraping:
            scraper.cancel()
        await asyncio.gather(*scraping, return_exceptions=True)
    assert times[50] < 0.025, times[::10]


async def _scrape(pod: Pod) -> None:
    async with connected(pod) as (reader, writer):
        while True:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = [int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")]
            await reader.readexactly(length)


async def _decide(caller: Foreign) -> float:
    began = time.monotonic()
    assert (await caller.ask(task("acme"))).ok
    return time.monotonic() - began


@pytest.mark.parametrize("host", ["::", "::1", "127.0.0.1"])
async def test_a_pod_listens_where_it_is_told_to(own: Own, host: str) -> None:
    """The default takes both families."""
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    fleet, _ = await own(pods=0)
    pod = fleet.pod(ROUTER_HTTP_HOST=host)
    await pod.start(wait=False)
    addresses = {"::": ["127.0.0.1", "::1"]}.get(host, [host])
    for address in addresses:
        async with asyncio.timeout(20):
            while True:
                try:
                    await probed(pod, address)
                    break
                except OSError:
                    await asyncio.sleep(0.05)  # the pod starts
