"""Stores of a test's own: a fresh schema on the session's server, and on the session's Cluster."""

from collections.abc import AsyncIterator, Iterator
from secrets import token_hex

import pytest
from redis import Redis, RedisCluster

from router.store.keys import Keys
from router.store.servers.cluster import Cluster
from router.store.servers.nodes import Nodes, SingleNode
from tests.servers import ValkeyCluster
from tests.store.fake import FakeNode
from tests.store.harness import Store


@pytest.fixture(scope="session")
def single(redis_url: str) -> Iterator[Redis]:
    """A client of the session's server."""
    client: Redis = Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
async def nodes(pod_redis_url: str) -> AsyncIterator[SingleNode]:
    """A pod's client of the session's server."""
    client = SingleNode(pod_redis_url)
    await client.open()
    yield client
    await client.close()


@pytest.fixture(params=["fake", pytest.param("server", marks=pytest.mark.server)])
async def plain(request: pytest.FixtureRequest) -> AsyncIterator[SingleNode]:
    """A pod's client for what runs no script, once on the fake and once on the session's server."""
    client = FakeNode() if request.param == "fake" else SingleNode(request.getfixturevalue("pod_redis_url"))
    await client.open()
    yield client
    await client.close()


@pytest.fixture
def keys() -> Keys:
    """A schema that nobody else uses."""
    return Keys(f"t{token_hex(5)}")


@pytest.fixture(scope="session")
def valkey_cluster(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """A real Cluster of three nodes; shared, so a test takes a fresh schema and never flushes."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(valkey_cluster: ValkeyCluster) -> Iterator[RedisCluster]:
    """A client of the session's Cluster."""
    client = RedisCluster.from_url(valkey_cluster.url)
    yield client
    client.close()


@pytest.fixture(params=["single", "cluster"])
def store(servers: None, request: pytest.FixtureRequest) -> Store:
    """A schema that nobody else uses, on the session's server and on the session's Cluster."""
    return Store(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def store_at_once(single: Redis) -> Store:
    """One schema for all examples of a property: each takes a tenant of its own."""
    return Store(single)


@pytest.fixture(scope="session", params=["single", "cluster"])
def either_at_once(servers: None, request: pytest.FixtureRequest) -> Store:
    """The same, once on the session's server and once on its Cluster."""
    return Store(request.getfixturevalue(request.param))


@pytest.fixture
async def store_nodes(store: Store, pod_redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Nodes]:
    """A pod's client of the server that the store is on."""
    if isinstance(store.client, RedisCluster):
        cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
        made: Nodes = Cluster(cluster.pod_url)
    else:
        made = SingleNode(pod_redis_url)
    await made.open()
    yield made
    await made.close()
