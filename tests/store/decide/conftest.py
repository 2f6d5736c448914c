"""Pods whose lanes lead to the shared Redis, or to one of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.store.servers.nodes import SingleNode
from tests.servers import ValkeyProcess
from tests.store.pods import QUICK, Pod, fresh_keys


@pytest.fixture
async def pod(redis_url: str) -> AsyncIterator[Pod]:
    """A pod on the session's server."""
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys()) as opened:
        yield opened
    await nodes.close()


@pytest.fixture
def own(servers: None, tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server that the test may take away."""
    with ValkeyProcess(tmp_path) as server:
        yield server


@pytest.fixture
async def own_pod(own: ValkeyProcess) -> AsyncIterator[Pod]:
    """A pod with a short deadline on that server."""
    nodes = SingleNode(own.url)
    async with Pod(nodes, fresh_keys(), settings=QUICK) as opened:
        yield opened
        own.thaw() if own.process is not None else None
    await nodes.close()
