"""Settings → the Redis that they name: one server, a Cluster, or the primary of sentinels."""

from router.settings import Settings, redis_url
from router.settings.types import SENTINEL_PORT, host_port
from router.store.servers.cluster import Cluster
from router.store.servers.nodes import Nodes, SingleNode
from router.store.servers.options import Access, Sentinel
from router.store.servers.rights import Server
from router.store.servers.sentinels import SentinelPrimary


def redis_nodes(s: Settings) -> Nodes:
    """The servers that take writes. Nothing is connected before `open`."""
    if s.redis_cluster:
        return Cluster(s.redis_url, redis_access(s))
    sentinel = redis_sentinel(s)
    if sentinel is not None:
        return SentinelPrimary(s.redis_url, redis_access(s), sentinel)
    return SingleNode(s.redis_url, redis_access(s))


def redis_replica(s: Settings) -> Nodes | None:
    """The replica for audit reads; None: there is none."""
    return None if s.redis_replica_url is None else SingleNode(s.redis_replica_url, redis_access(s))


def redis_sentinel(s: Settings) -> Sentinel | None:
    """How to reach the sentinels; None: there are none."""
    if not s.redis_sentinels:
        return None
    own = s.redis_sentinel_tls_cert is not None
    files = (
        s.redis_sentinel_tls_ca or s.redis_tls_ca,
        s.redis_sentinel_tls_cert if own else s.redis_tls_cert,
        s.redis_sentinel_tls_key if own else s.redis_tls_key,
    )
    ca, cert, key = (None if file is None else str(file) for file in files)
    password = s.redis_sentinel_password
    return Sentinel(
        addresses=tuple(host_port(text, SENTINEL_PORT) for text in s.redis_sentinels),
        master=s.redis_sentinel_master,
        access=Access(
            username=s.redis_sentinel_username,
            password=None if password is None else password.get_secret_value(),
            tls_ca=ca,
            tls_cert=cert,
            tls_key=key,
        ),
        tls=s.redis_sentinel_tls,
    )


def redis_server(s: Settings) -> Server:
    """The settings that the rights in Redis depend on."""
    return Server(
        schema=s.store_schema,
        cluster=s.redis_cluster,
        wait_replicas=s.wait_replicas > 0,
        database=redis_url.database(s.redis_url),
    )


def redis_access(s: Settings) -> Access:
    """Credentials and TLS files of Redis."""
    return Access(
        username=s.redis_username,
        password=None if s.redis_password is None else s.redis_password.get_secret_value(),
        tls_ca=None if s.redis_tls_ca is None else str(s.redis_tls_ca),
        tls_cert=None if s.redis_tls_cert is None else str(s.redis_tls_cert),
        tls_key=None if s.redis_tls_key is None else str(s.redis_tls_key),
    )


def insecure_redis(s: Settings) -> list[str]:
    """The parameters that weaken TLS to Redis, by setting; ROUTER_REDIS_TLS_INSECURE permits them."""
    urls = (("ROUTER_REDIS_URL", s.redis_url), ("ROUTER_REDIS_REPLICA_URL", s.redis_replica_url))
    return [f"{name}: {found}" for name, url in urls if url is not None for found in redis_url.weakened(url)]
