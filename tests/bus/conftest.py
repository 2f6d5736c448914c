"""A bus to the session's server, names of one's own, and waiting for things without sleeping."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from tests.bus.guarded import users
from tests.servers import NatsProcess


class Heard:
    """Collects what callbacks say; `until` waits for a number of it, or for a condition at each new one."""

    def __init__(self) -> None:
        self.items: list[object] = []
        self._news = asyncio.Event()

    def __call__(self, *item: object) -> None:
        self.items.append(item[0] if len(item) == 1 else item)
        self._news.set()

    async def until(self, wanted: int | Callable[[list[object]], bool], timeout_s: float = 10.0) -> list[object]:
        """All heard so far, once there are `wanted` of it."""
        async with asyncio.timeout(timeout_s):
            while not (wanted(self.items) if callable(wanted) else len(self.items) >= wanted):
                self._news.clear()
                await self._news.wait()
        return self.items


async def only_the_first_connects(server: NatsProcess, good: Bus, bad: Bus) -> None:
    """Of two buses to a server, `good` sends and receives, and `bad` goes on failing; all of them are stopped."""
    heard, failed = Heard(), Heard()
    bad.on_error.append(failed)
    try:
        await good.start()
        await bad.start()
        assert await good.wait_connected(10)
        await good.subscribe("inside", lambda _s, _r, data, _h: heard(data))
        good.publish("inside", b"in")
        assert await heard.until(1) == [b"in"]
        await failed.until(2)
        assert not bad.connected
    finally:
        await good.close()
        await bad.close()
        await asyncio.to_thread(server.stop)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    """Connected to the session's server."""
    bus = Bus(BusOptions((nats_url,)))
    await bus.start()
    assert await bus.wait_connected(10)
    yield bus
    await bus.close()


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Bus]:
    """A second connection: the other side."""
    bus = Bus(BusOptions((nats_url,), name="client"))
    await bus.start()
    assert await bus.wait_connected(10)
    yield bus
    await bus.close()


@pytest.fixture
def name() -> str:
    """A token that no other test uses in a subject or as a stream's name."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture
async def own_server(servers: None, tmp_path: Path) -> AsyncIterator[NatsProcess]:
    """A server that the test may take away."""
    server = await asyncio.to_thread(NatsProcess(tmp_path).start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def own_bus(own_server: NatsProcess) -> AsyncIterator[Bus]:
    """Connected to `own_server`."""
    bus = Bus(BusOptions((own_server.url,), ping_interval_s=1.0))
    await bus.start()
    assert await bus.wait_connected(10)
    yield bus
    await bus.close()


@pytest.fixture
async def guarded_server(servers: None, tmp_path: Path) -> AsyncIterator[NatsProcess]:
    """A server with the user `pod` of `tests.bus.guarded`, who may do everything at first."""
    server = await asyncio.to_thread(NatsProcess(tmp_path, extra=users()).start)
    yield server
    await asyncio.to_thread(server.stop)


@pytest.fixture
async def guarded_bus(guarded_server: NatsProcess) -> AsyncIterator[Bus]:
    """Connected as `pod` to `guarded_server`."""
    bus = Bus(BusOptions((guarded_server.url,), user="pod", password="pw"))  # noqa: S106
    await bus.start()
    assert await bus.wait_connected(10)
    yield bus
    await bus.close()
