"""Stores of a test's own: a fresh schema on the session's server, and on the session's Cluster."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.store.harness import Store


@pytest.fixture(scope="session")
def single(redis_url: str) -> Iterator[Redis]:
    """A client of the session's server."""
    client: Redis = Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(single: Redis) -> Store:
    """A schema that nobody else uses, on the session's server."""
    return Store(single)


@pytest.fixture(scope="session")
def store_at_once(single: Redis) -> Store:
    """One schema for all examples of a property: each takes a tenant of its own."""
    return Store(single)
