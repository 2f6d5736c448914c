"""One fleet of two pods for tests that harm nobody; `own` for those that kill, freeze or flush."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.foreign import Foreign
from tests.fleet.harness import Fleet

Own = Callable[..., Any]


@pytest.fixture(scope="session")
async def fleet(servers: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Two pods that are shared: take a fresh tenant, kill nothing."""
    async with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
async def caller(fleet: Fleet) -> AsyncIterator[Foreign]:
    """A client of the shared fleet; after the test no request of it may have had two replies."""
    async with Foreign(fleet.nats.url) as caller:
        yield caller
        await caller.client.flush()
        assert caller.doubles() == 0


@pytest.fixture
async def own(servers: None, tmp_path: Path) -> AsyncIterator[Own]:
    """`fleet, caller = await own(pods=…, env=…, policies=…)`: servers and pods that this test may harm."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> tuple[Fleet, Foreign]:
            fleet = await stack.enter_async_context(Fleet(tmp_path / "own", **options))
            return fleet, await stack.enter_async_context(Foreign(fleet.nats.url))

        yield start
