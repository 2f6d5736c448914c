"""Worlds of pods that die."""

from collections.abc import AsyncIterator, Callable
from secrets import token_hex
from typing import Any

import pytest

from router.domain.policy.model import StoredPolicy
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from tests.store.pods import Pod
from tests.usecases.fakes.settling import STORED, World


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[Callable[[], Any]]:
    """Makes worlds: each is a schema of its own."""
    nodes = SingleNode(redis_url)
    pods: list[Pod] = []

    async def made(stored: StoredPolicy = STORED) -> World:
        pod = Pod(nodes, Keys(schema=f"s{token_hex(5)}"))
        pods.append(await pod.__aenter__())
        return World(pod, stored)

    yield made
    for pod in pods:
        await pod.__aexit__()
    await nodes.close()
