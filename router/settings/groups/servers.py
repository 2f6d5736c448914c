"""Settings of the connections to NATS and Redis."""

from typing import Literal

from pydantic import SecretStr

from router.settings.groups.group import Group
from router.settings.types import ExistingFile, NatsUrls, RedisUrl, Sentinels, setting

_TOKENS = r"^[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*$"


class Nats(Group):
    """NATS"""

    nats_url: NatsUrls = setting(
        ("nats://127.0.0.1:4222",),
        description="NATS servers, comma-separated; `tls://` in all of them for TLS. With `tls://`, or with any of the "
        "TLS settings below, a connection without TLS is never used.",
        min_length=1,
    )
    nats_name: str = setting(
        "router", description="Connection name that the server shows.", min_length=1, max_length=128
    )
    nats_user: str | None = setting(None, description="User name for NATS.")
    nats_password: SecretStr | None = setting(None, description="Password of the NATS user.")
    nats_token: SecretStr | None = setting(None, description="Token for NATS, instead of a user.")
    nats_creds_file: ExistingFile | None = setting(
        None, description="Path of a .creds file (JWT and seed) for NATS, instead of a user."
    )
    nats_nkey_seed_file: ExistingFile | None = setting(
        None, description="Path of a file with the seed of an nkey for NATS, instead of a user."
    )
    nats_inbox_prefix: str = setting(
        "_INBOX",
        description="First tokens of this process's own inboxes, for users that may subscribe only to those (`router "
        "acl nats`).",
        pattern=_TOKENS,
    )
    nats_js_domain: str | None = setting(
        None,
        description="JetStream domain, such as that of a hub behind a leaf node.",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
    )
    nats_js_api_prefix: str | None = setting(
        None,
        description="First tokens of JetStream's API subjects, such as those of an import; instead of a domain.",
        pattern=_TOKENS,
    )
    nats_tls_ca: ExistingFile | None = setting(None, description="CA bundle to verify the server's certificate.")
    nats_tls_cert: ExistingFile | None = setting(None, description="Client certificate for mutual TLS.")
    nats_tls_key: ExistingFile | None = setting(None, description="Key of the client certificate.")
    nats_tls_first: bool = setting(
        False,
        description="Start TLS before the server's first line, for servers with `handshake_first`; nothing is in "
        "clear text.",
    )


class Redis(Group):
    """Redis"""

    redis_url: RedisUrl = setting(
        "redis://127.0.0.1:6379/0",
        description="Redis server, or any node of the cluster; `rediss://` for TLS, `unix:///path` for a socket. "
        "Parameters: db, username, password, ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs, "
        "ssl_check_hostname.",
    )
    redis_cluster: bool = setting(
        False, description="The server is a Redis Cluster; each partition's calls go to its node."
    )
    redis_replica_url: RedisUrl | None = setting(
        None, description="Replica for audit reads and exports, so that they do not slow decisions; not with a cluster."
    )
    redis_username: str | None = setting(None, description="ACL user of Redis.")
    redis_password: SecretStr | None = setting(None, description="Password of the Redis user.")
    redis_tls_ca: ExistingFile | None = setting(None, description="CA bundle to verify the server's certificate.")
    redis_tls_cert: ExistingFile | None = setting(None, description="Client certificate for mutual TLS.")
    redis_tls_key: ExistingFile | None = setting(None, description="Key of the client certificate.")
    redis_tls_insecure: bool = setting(
        False,
        description="Permit URL parameters that weaken TLS (`ssl_cert_reqs=none`, `ssl_check_hostname=false`); each "
        "start logs them.",
    )
    redis_sentinels: Sentinels = setting(
        (),
        description="Redis Sentinels as host:port, comma-separated; the pods follow the primary that they name. "
        "Scheme, login, database and TLS of ROUTER_REDIS_URL stay, its host and port are not used.",
    )
    redis_sentinel_master: str = setting(
        "mymaster",
        description="Name of the primary in the sentinels' configuration.",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    redis_sentinel_username: str | None = setting(None, description="ACL user of the sentinels.")
    redis_sentinel_password: SecretStr | None = setting(None, description="Password of the sentinels.")
    redis_sentinel_tls: bool = setting(False, description="The sentinels speak TLS.")
    redis_sentinel_tls_ca: ExistingFile | None = setting(
        None, description="CA bundle to verify the sentinels' certificates; none: ROUTER_REDIS_TLS_CA."
    )
    redis_sentinel_tls_cert: ExistingFile | None = setting(
        None, description="Client certificate for the sentinels; none: ROUTER_REDIS_TLS_CERT."
    )
    redis_sentinel_tls_key: ExistingFile | None = setting(None, description="Key of that certificate.")
    allow_eviction: bool = setting(
        False, description="Start even if the server may evict keys (its maxmemory-policy is not noeviction)."
    )
    redis_maxmemory_policy: (
        Literal[
            "noeviction",
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
        ]
        | None
    ) = setting(
        None,
        description="maxmemory-policy of servers that do not say theirs (INFO is blocked); where INFO says it, INFO "
        "counts.",
    )
    wait_replicas: int = setting(
        0, description="Replicas that must have a write before it is answered (Redis WAIT).", ge=0, le=10
    )
