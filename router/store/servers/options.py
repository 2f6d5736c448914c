"""How connections to Redis are made: the one place where address, credentials and TLS become options of redis-py."""

from collections.abc import Callable
from typing import Any

import redis
from msgspec import Struct
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo

from router.store.servers.endpoints import node_connection

# The library name that connections report. Without it redis-py reads its version from disk for every connection.
DRIVER = DriverInfo(lib_version=redis.__version__)
CONNECT_TIMEOUT_S = 1.0


class Access(Struct, frozen=True):
    """Credentials and trust for Redis that the URL does not contain. `tls_…` are paths of PEM files."""

    username: str | None = None
    password: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def __repr__(self) -> str:
        """The options without the password: a traceback may contain this text."""
        return f"Access(username={self.username!r}, tls_ca={self.tls_ca!r}, tls_cert={self.tls_cert!r})"

    def options(self, *, tls: bool) -> dict[str, Any]:
        """The arguments in redis-py's names; only those that are set. `tls`: for a connection over TLS."""
        given = {"username": self.username, "password": self.password}
        if tls:
            given |= {"ssl_ca_certs": self.tls_ca, "ssl_certfile": self.tls_cert, "ssl_keyfile": self.tls_key}
        return {name: value for name, value in given.items() if value is not None}


ANYBODY = Access()


class Sentinel(Struct, frozen=True):
    """How to reach the sentinels, and the name under which they know the primary."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    access: Access = ANYBODY
    tls: bool = False

    def url(self, address: tuple[str, int]) -> str:
        """The URL of one sentinel."""
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{'rediss' if self.tls else 'redis'}://{host}:{address[1]}"


def _options(url: str, access: Access) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """The class of the connections, and the arguments of its constructor."""
    options: dict[str, Any] = dict(parse_url(url))
    kind: type[AbstractConnection] = options.pop("connection_class", Connection)
    options |= access.options(tls=issubclass(kind, SSLConnection))
    return kind, options | _always()


def _always() -> dict[str, Any]:
    """redis-py's own retries are off, so that a fault of Redis is noticed at once."""
    return {"retry": Retry(NoBackoff(), 0), "driver_info": DRIVER, "protocol": 2}


def connection_factory(
    url: str, access: Access = ANYBODY, *, node: tuple[str, int] | None = None
) -> Callable[[], AbstractConnection]:
    """Return a function that makes connections for scripts. `node`: the address of a Cluster's node, instead of the
    URL's.
    """
    kind, options = _options(url, access)
    if node is not None and kind is not UnixDomainSocketConnection:
        options |= {"host": node[0], "port": node[1]}
        kind = node_connection(kind)
    options |= {"socket_timeout": None, "socket_connect_timeout": CONNECT_TIMEOUT_S, "decode_responses": False}
    return lambda: kind(**options)


def connection_pool(
    url: str, access: Access, *, timeout_s: float, node: tuple[str, int] | None = None
) -> ConnectionPool:
    """The connections of the general client. `node`: the address of the server, instead of the URL's."""
    kind, options = _options(url, access)
    if node is not None:
        options |= {"host": node[0], "port": node[1]}
    options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    return ConnectionPool(connection_class=kind, **options)


def cluster_options(url: str, access: Access, *, timeout_s: float) -> dict[str, Any]:
    """The arguments of `RedisCluster.from_url` beside the URL."""
    timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    return access.options(tls=url.startswith("rediss://")) | _always() | timeouts
