"""TLS to Redis: both roads, the decide lane and the general client, on a real server behind TLS."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.domain.decide.outcome import Admitted
from router.errors import StoreError
from router.store.decide.calls import LaneSettings
from router.store.servers.nodes import SingleNode
from router.store.servers.options import Access
from tests.certificates import Authority, Certificate
from tests.servers import ValkeyProcess
from tests.store.pods import Pod, ask, fresh_keys
from tests.tls_proxy import tls_in_front

PATIENT = LaneSettings(deadline_ms=10_000)
"""A handshake takes its time on a busy machine."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that the pods trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certificate:
    """Of a pod."""
    return authority.issue("pod")


@pytest.fixture
async def mutual(servers: None, tmp_path: Path, authority: Authority) -> AsyncIterator[int]:
    """The port of a server that demands certificates."""
    with ValkeyProcess(tmp_path) as server:
        context = authority.issue("server").context(authority.ca)
        async with tls_in_front(server.port, context) as port:
            yield port


async def test_a_client_certificate_opens_both_roads(mutual: int, authority: Authority, client: Certificate) -> None:
    """With CA, certificate and key as settings, and as parameters of the URL."""
    access = Access(tls_ca=str(authority.ca), tls_cert=str(client.cert), tls_key=str(client.key))
    query = f"?ssl_ca_certs={authority.ca}&ssl_certfile={client.cert}&ssl_keyfile={client.key}"
    for url, trust in ((f"rediss://127.0.0.1:{mutual}", access), (f"rediss://127.0.0.1:{mutual}{query}", Access())):
        nodes = SingleNode(url, trust, timeout_s=10)
        await nodes.open()
        async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
            (outcome,) = await pod.decide(ask())
            assert isinstance(outcome, Admitted)
        await nodes.close()


@pytest.mark.parametrize("wrong", ["no certificate", "another authority", "the system's authorities", "no TLS"])
async def test_anything_less_is_refused(
    wrong: str, mutual: int, authority: Authority, client: Certificate, tmp_path: Path
) -> None:
    """By the server or by the pod, with a reason."""
    mine = {"tls_cert": str(client.cert), "tls_key": str(client.key)}
    access = {
        "no certificate": Access(tls_ca=str(authority.ca)),
        "another authority": Access(tls_ca=str(Authority(tmp_path / "other").ca), **mine),
        "the system's authorities": Access(**mine),
        "no TLS": Access(),
    }[wrong]
    scheme = "redis" if wrong == "no TLS" else "rediss"
    nodes = SingleNode(f"{scheme}://127.0.0.1:{mutual}", access, timeout_s=10)
    with pytest.raises(StoreError):
        await nodes.open()
    await nodes.close()


async def test_a_name_that_the_certificate_lacks(servers: None, tmp_path: Path, authority: Authority) -> None:
    """It is refused; the insecure parameters accept it on both roads."""
    with ValkeyProcess(tmp_path) as server:
        context = authority.issue("elsewhere", "DNS:elsewhere.example").context()
        async with tls_in_front(server.port, context) as port:
            nodes = SingleNode(f"rediss://127.0.0.1:{port}", Access(tls_ca=str(authority.ca)), timeout_s=10)
            with pytest.raises(StoreError, match="certificate is not valid for"):
                await nodes.open()
            await nodes.close()
            for weakened in ("ssl_check_hostname=false", "ssl_cert_reqs=none"):
                url = f"rediss://127.0.0.1:{port}?{weakened}"
                nodes = SingleNode(url, Access(tls_ca=str(authority.ca)), timeout_s=10)
                async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
                    (outcome,) = await pod.decide(ask())
                    assert isinstance(outcome, Admitted)
                await nodes.close()


async def test_a_socket_file(servers: None, tmp_path: Path) -> None:
    """`unix:///path`, with a database and a login, on both roads."""
    socket = tmp_path / "v.sock"
    rules = ("--user", "router", "on", ">sesame:@/?#", "~*", "&*", "+@all")
    with ValkeyProcess(tmp_path / "data", args=("--unixsocket", str(socket), *rules)):
        url = f"unix://router:sesame%3A%40%2F%3F%23@{socket}?db=3"
        nodes = SingleNode(url)
        await nodes.open()
        async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
            (outcome,) = await pod.decide(ask())
            assert isinstance(outcome, Admitted)
            assert b"db=3" in await nodes.call("CLIENT", "INFO")
        await nodes.close()
