"""The settings of Redis Sentinel: what they become, and what contradicts them."""

import pytest

from router.app.adapter_settings import secrets_of
from router.app.redis_nodes import redis_nodes, redis_sentinel
from router.errors import InvalidInput
from router.settings import load
from router.store.servers.options import Access, Sentinel
from router.store.servers.sentinels import SentinelPrimary

FILE, OTHER = __file__, pytest.__file__
SENTINELS = {"ROUTER_REDIS_SENTINELS": "s-0:26380, s-1,[::1]:1,10.0.0.1"}


def test_everything_reaches_its_option() -> None:
    """Addresses have a default port; login and TLS are the sentinels' own."""
    settings = load(
        SENTINELS
        | {
            "ROUTER_REDIS_SENTINEL_MASTER": "fleet",
            "ROUTER_REDIS_SENTINEL_USERNAME": "u",
            "ROUTER_REDIS_SENTINEL_PASSWORD": "a-password",
            "ROUTER_REDIS_SENTINEL_TLS": "true",
            "ROUTER_REDIS_SENTINEL_TLS_CA": FILE,
            "ROUTER_REDIS_SENTINEL_TLS_CERT": FILE,
            "ROUTER_REDIS_SENTINEL_TLS_KEY": OTHER,
        }
    )
    addresses = (("s-0", 26380), ("s-1", 26379), ("::1", 1), ("10.0.0.1", 26379))
    access = Access("u", "a-password", tls_ca=FILE, tls_cert=FILE, tls_key=OTHER)
    found = redis_sentinel(settings)
    assert found == Sentinel(addresses, "fleet", access=access, tls=True)
    assert [found.url(address) for address in addresses[1:3]] == ["rediss://s-1:26379", "rediss://[::1]:1"]
    assert "a-password" in secrets_of(settings)


def test_tls_files_of_redis_serve_the_sentinels_too() -> None:
    """Unless they have their own."""
    redis = {
        "ROUTER_REDIS_URL": "rediss://r/2",
        "ROUTER_REDIS_TLS_CA": FILE,
        "ROUTER_REDIS_TLS_CERT": FILE,
        "ROUTER_REDIS_TLS_KEY": FILE,
    }
    found = redis_sentinel(load(SENTINELS | redis | {"ROUTER_REDIS_SENTINEL_TLS": "true"}))
    assert found is not None
    assert found.access == Access(tls_ca=FILE, tls_cert=FILE, tls_key=FILE)
    own = {"ROUTER_REDIS_SENTINEL_TLS": "true", "ROUTER_REDIS_SENTINEL_TLS_CA": OTHER}
    found = redis_sentinel(load(SENTINELS | redis | own))
    assert found is not None
    assert found.access == Access(tls_ca=OTHER, tls_cert=FILE, tls_key=FILE)


def test_without_sentinels_there_are_none() -> None:
    """The default."""
    assert redis_sentinel(load({})) is None


async def test_pods_and_commands_follow_the_sentinels() -> None:
    """One function makes the client for both."""
    nodes = redis_nodes(load(SENTINELS))
    assert isinstance(nodes, SentinelPrimary)
    await nodes.close()


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"ROUTER_REDIS_SENTINELS": "s:0"}, "ROUTER_REDIS_SENTINELS: expected host:port"),
        ({"ROUTER_REDIS_SENTINELS": "s:x"}, "ROUTER_REDIS_SENTINELS: expected host:port"),
        ({"ROUTER_REDIS_SENTINELS": "s:"}, "ROUTER_REDIS_SENTINELS: expected host:port"),
        ({"ROUTER_REDIS_SENTINELS": "redis://s:26379"}, "ROUTER_REDIS_SENTINELS: expected host:port"),
        ({"ROUTER_REDIS_SENTINELS": "u:p@s:26379"}, "ROUTER_REDIS_SENTINELS: expected host:port"),
        ({"ROUTER_REDIS_SENTINELS": "a,,b"}, "ROUTER_REDIS_SENTINELS: has an empty item"),
        ({"ROUTER_REDIS_SENTINELS": "a,a"}, "ROUTER_REDIS_SENTINELS: names an item twice"),
        ({"ROUTER_REDIS_SENTINEL_MASTER": "fleet"}, "ROUTER_REDIS_SENTINEL_MASTER: has no effect"),
        ({"ROUTER_REDIS_SENTINEL_PASSWORD": "p"}, "ROUTER_REDIS_SENTINEL_PASSWORD: has no effect"),
        ({"ROUTER_REDIS_SENTINEL_TLS": "true"}, "ROUTER_REDIS_SENTINEL_TLS: has no effect"),
        (SENTINELS | {"ROUTER_REDIS_SENTINEL_MASTER": "a b"}, "ROUTER_REDIS_SENTINEL_MASTER: must match"),
        (SENTINELS | {"ROUTER_REDIS_CLUSTER": "true"}, "ROUTER_REDIS_SENTINELS: a Redis Cluster has no sentinels"),
        (SENTINELS | {"ROUTER_REDIS_URL": "unix:///s"}, "ROUTER_REDIS_SENTINELS: sentinels name addresses"),
        (SENTINELS | {"ROUTER_REDIS_SENTINEL_TLS_CA": FILE}, "ROUTER_REDIS_SENTINEL_TLS_CA: works only over TLS"),
        (
            SENTINELS | {"ROUTER_REDIS_SENTINEL_TLS": "true", "ROUTER_REDIS_SENTINEL_TLS_KEY": FILE},
            "ROUTER_REDIS_SENTINEL_TLS_CERT: certificate and key",
        ),
    ],
)
def test_what_is_refused(environ: dict[str, str], why: str) -> None:
    """Each names its variable."""
    with pytest.raises(InvalidInput) as refused:
        load(environ)
    assert why in str(refused.value)
