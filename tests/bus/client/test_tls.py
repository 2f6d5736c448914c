"""TLS to NATS cannot be taken away: whoever stands in between gets no login and no message."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]  # it carries no types
import pytest
from msgspec.structs import replace

from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions, connect_arguments
from router.errors import InvalidInput
from router.nats_tls import TlsClient, TlsRefused
from router.settings import load
from router.worker import Worker
from tests.bus.client.fake_server import FakeServer
from tests.bus.conftest import Heard
from tests.certificates import Authority, Certificate
from tests.servers import NatsProcess, free_port

LOGIN = ("user-of-the-fleet", "password-of-the-fleet")
WORDS = tuple(word.encode() for word in LOGIN)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that the pods trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """Of the server at 127.0.0.1."""
    return authority.issue("server")


def options(url: str, **more: Any) -> BusOptions:
    """With a login, and quick."""
    user, password = LOGIN
    return replace(BusOptions((url,), user=user, password=password, connect_timeout_s=1.0), **more)


@asynccontextmanager
async def started(with_options: BusOptions) -> AsyncIterator[tuple[Bus, Heard]]:
    """A bus that tries to connect, and what fails."""
    bus, failed = Bus(with_options), Heard()
    bus.on_error.append(failed)
    await bus.start()
    try:
        yield bus, failed
    finally:
        await bus.close()


Ask = Callable[[FakeServer, Authority, Certificate], BusOptions]
ASKED: dict[str, Ask] = {
    "tls://": lambda server, _a, _c: options(server.tls_url),
    "tls:// and a CA": lambda server, a, _c: options(server.tls_url, tls_ca=str(a.ca)),
    "nats:// and a CA": lambda server, a, _c: options(server.url, tls_ca=str(a.ca)),
    "nats:// and a client certificate": lambda server, _a, c: options(
        server.url, tls_cert=str(c.cert), tls_key=str(c.key)
    ),
    "nats:// and a host name": lambda server, _a, _c: options(server.url, tls_hostname="nats.example"),
    "nats:// and TLS first": lambda server, _a, _c: options(server.url, tls_first=True),
    "a login in the URL": lambda server, _a, _c: BusOptions(
        (server.tls_url.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@"),), connect_timeout_s=1.0
    ),
    "a token": lambda server, _a, _c: BusOptions((server.tls_url,), token=LOGIN[1], connect_timeout_s=1.0),
}
SAID: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no TLS required": {"tls_required": False, "auth_required": True},
    "TLS not available": {"tls_available": False, "auth_required": True},
    "a login is required": {"auth_required": True},
    "only verified": {"tls_verify": True, "auth_required": True},
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("ask", ASKED)
async def test_a_server_without_tls_gets_nothing(
    ask: str, said: str, authority: Authority, certificate: Certificate
) -> None:
    """Whatever asks for TLS: the connection ends without a byte of ours in clear text, at every new try."""
    async with FakeServer(SAID[said]) as server:
        asked = ASKED[ask](server, authority, certificate)
        async with started(asked) as (bus, failed):
            await server.until(lambda s: s.ended >= 2)
            assert not bus.connected
            await failed.until(2)
        if asked.tls_first:  # the start of a handshake holds no secret
            assert not [word for word in (*WORDS, b"CONNECT") if word in server.clear]
        else:
            assert bytes(server.clear) == b""
            assert any("offers no TLS" in str(error) for error in failed.items)


async def test_an_nkey_signs_nothing_for_a_server_without_tls(tmp_path: Path) -> None:
    """Neither the public key nor a signature of the server's challenge."""
    file = tmp_path / "user.nk"
    file.write_bytes(bytes(nkeys.encode_seed(b"s" * 32, nkeys.PREFIX_BYTE_USER)))
    async with FakeServer({"auth_required": True}) as server:
        async with started(BusOptions((server.tls_url,), nkey_seed=str(file))):
            await server.until(lambda s: s.ended >= 2)
        assert bytes(server.clear) == b""


async def test_without_a_wish_for_tls_the_server_decides(authority: Authority, certificate: Certificate) -> None:
    """nats:// alone is clear text, and encrypted if the server says so: then nothing goes in clear text either."""
    async with FakeServer() as server, started(options(server.url)) as (bus, _):
        assert await bus.wait_connected(10)
        assert all(word in server.clear for word in WORDS)
    said = {"tls_required": True}
    async with FakeServer(said, upgrade=certificate.context()) as server:
        async with started(options(server.url)) as (bus, failed):
            await failed.until(1)  # the system does not trust the test's authority
            assert not bus.connected
        assert not [word for word in WORDS if word in server.clear + server.secret]


@pytest.mark.parametrize(
    "said", [{"tls_required": True}, {"tls_available": True}, {"tls_required": False, "tls_available": True}]
)
async def test_tls_that_a_server_offers_is_used(
    said: dict[str, Any], authority: Authority, certificate: Certificate
) -> None:
    """A server that leaves the choice to its clients is encrypted too; the login goes through TLS only."""
    async with FakeServer(said, upgrade=certificate.context()) as server:
        async with started(options(server.tls_url, tls_ca=str(authority.ca))) as (bus, _):
            assert await bus.wait_connected(10)
        assert bytes(server.clear) == b""
        assert all(word in server.secret for word in WORDS)


async def test_a_certificate_of_somebody_else_gets_nothing(authority: Authority, tmp_path: Path) -> None:
    """Wrong authority, wrong host, and an upgrade that was promised and does not come."""
    stranger = Authority(tmp_path / "stranger").issue("server")
    elsewhere = authority.issue("elsewhere", "DNS:elsewhere.example")
    for context in (stranger.context(), elsewhere.context()):
        async with FakeServer({"tls_required": True}, upgrade=context) as server:
            async with started(options(server.tls_url, tls_ca=str(authority.ca))) as (bus, _):
                await server.until(lambda s: s.ended >= 2)
                assert not bus.connected
            assert bytes(server.clear + server.secret) == b""
    async with FakeServer({"tls_required": True}) as server:
        async with started(options(server.tls_url, tls_ca=str(authority.ca))):
            await server.until(lambda s: s.ended >= 2)
        assert not [word for word in (*WORDS, b"CONNECT") if word in server.clear]


async def test_tls_that_is_taken_away_later(authority: Authority, certificate: Certificate) -> None:
    """The pod was connected over TLS. After the reconnect the server offers none: no login, no messages."""
    async with FakeServer({"tls_required": True}, upgrade=certificate.context()) as server:
        async with started(options(server.url, tls_ca=str(authority.ca))) as (bus, failed):
            assert await bus.wait_connected(10)
            await bus.subscribe("secret.subject", lambda *_: None)
            server.info, server.upgrade = {"auth_required": True}, None
            bus.publish("secret.subject", b"secret payload")
            server.drop()
            await server.until(lambda s: s.ended >= 3)
            bus.publish("secret.subject", b"secret payload")
            await failed.until(lambda items: any("offers no TLS" in str(item) for item in items))
            assert not bus.connected
        assert bytes(server.clear) == b""


async def test_servers_that_the_cluster_announces_are_held_to_tls(
    authority: Authority, certificate: Certificate
) -> None:
    """The first server is lost. The one that it announced offers no TLS, and gets nothing, for as long as it likes."""
    async with FakeServer({"auth_required": True}) as announced:
        said = {"tls_required": True, "connect_urls": [f"127.0.0.1:{announced.port}"]}
        async with FakeServer(said, first=certificate.context()) as first:
            asked = options(first.url, tls_ca=str(authority.ca), tls_first=True)
            async with started(asked) as (bus, _):
                assert await bus.wait_connected(10)
                await first.stop()
                await announced.until(lambda s: s.ended >= 2)
                assert not bus.connected
        assert not [word for word in (*WORDS, b"CONNECT") if word in announced.clear]


async def test_addresses_announced_in_clear_text_are_not_followed(
    authority: Authority, certificate: Certificate
) -> None:
    """The line before TLS may be anybody's: with a certificate of a public authority its server would be trusted."""
    async with FakeServer({"tls_required": True}, upgrade=certificate.context()) as stranger:
        said = {"tls_required": True, "connect_urls": [f"127.0.0.1:{stranger.port}"]}
        async with (
            FakeServer(said, upgrade=certificate.context()) as server,
            started(options(server.url, tls_ca=str(authority.ca))) as (bus, _),
        ):
            assert await bus.wait_connected(10)
            again = Heard()
            bus.on_connect.append(lambda: again(True))
            for number in (1, 2, 3):
                server.drop()
                await again.until(number)
        assert stranger.accepted == 0


async def test_a_real_cluster_announces_its_servers_over_tls(
    servers: None, tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    """A pod that knows one server of two goes to the other one when it is lost."""
    login = f"authorization {{ user: {LOGIN[0]}, password: {LOGIN[1]} }}"
    tls = f"tls {{ cert_file: '{certificate.cert}', key_file: '{certificate.key}' }}\n{login}"
    first, second = NatsProcess(tmp_path / "first"), NatsProcess(tmp_path / "second")
    ports = [free_port(), free_port()]
    for server, own, other in ((first, ports[0], ports[1]), (second, ports[1], ports[0])):
        cluster = f"cluster {{ name: c, listen: 127.0.0.1:{own}, routes: ['nats://127.0.0.1:{other}'] }}"
        server.extra = f"{tls}\n{cluster}\njetstream: disabled"
    try:
        await asyncio.gather(asyncio.to_thread(first.start), asyncio.to_thread(second.start))
        async with started(options(first.url, tls_ca=str(authority.ca), ping_interval_s=0.5)) as (bus, _):
            assert await bus.wait_connected(10)
            if bus.server_version < (2, 12, 0):
                pytest.skip("NATS before 2.12 announces its cluster only in clear text, before the handshake")
            again = Heard()
            bus.on_connect.append(lambda: again(bus.server_version))
            async with asyncio.timeout(10):
                while bus._client is None or len(bus._client._server_pool) < 2:  # noqa: ASYNC110 - gossip has no event
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(first.kill)
            await again.until(1)
            assert bus.connected
    finally:
        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(second.stop)


@pytest.mark.parametrize("server_option", ["allow_non_tls: true", "tls_first"])
async def test_real_servers_that_leave_tls_open_or_begin_with_it(
    server_option: str, servers: None, tmp_path: Path, authority: Authority, certificate: Certificate
) -> None:
    """`allow_non_tls` is encrypted all the same; `handshake_first` needs ROUTER_NATS_TLS_FIRST."""
    first = "handshake_first: true" if server_option == "tls_first" else ""
    more = server_option if server_option != "tls_first" else ""
    tls = f"tls {{ cert_file: '{certificate.cert}', key_file: '{certificate.key}', {first} }}\n{more}"
    server = NatsProcess(tmp_path, extra=f"{tls}\njetstream: disabled")
    if first:
        server.answers = lambda: "Server is ready" in server.log.read_text()  # type: ignore[method-assign]
    await asyncio.to_thread(server.start)
    try:
        asked = options(
            server.url.replace("nats", "tls"),
            tls_ca=str(authority.ca),
            tls_first=bool(first),
        )
        async with started(asked) as (bus, _):
            assert await bus.wait_connected(10)
            assert bus._client is not None
            assert bus._client.is_encrypted
    finally:
        await asyncio.to_thread(server.stop)


async def test_commands_are_held_to_tls_too(authority: Authority) -> None:
    """`router decide`, `router explain` and the like use this client with these options."""
    async with FakeServer({"auth_required": True}) as server:
        client = TlsClient()
        asked = connect_arguments(options(server.tls_url)) | {"allow_reconnect": False}
        with pytest.raises(TlsRefused):
            await client.connect(servers=[server.tls_url], error_cb=_ignore, **asked)
        await client.close()
        assert bytes(server.clear) == b""


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_workers_are_held_to_tls_too(scheme: str, authority: Authority) -> None:
    """Workers made with the library, by the address or by `connect`."""
    async with FakeServer({"auth_required": True}) as server:
        context = None if scheme == "tls" else ssl.create_default_context(cafile=authority.ca)
        login = {"user": LOGIN[0], "password": LOGIN[1], "reconnect_time_wait": 0.05}
        worker = Worker(f"{scheme}://127.0.0.1:{server.port}", name="w", connect=login | {"tls": context})
        running = asyncio.create_task(worker.run())
        await server.until(lambda s: s.ended >= 2)
        worker.stop()
        await running
        assert bytes(server.clear) == b""


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"ROUTER_NATS_URL": "tls://a:4222,nats://b:4222"}, "ROUTER_NATS_URL: mixes"),
        ({"ROUTER_NATS_URL": "nats://a:4222,nats://b:4222,tls://c:4222"}, "ROUTER_NATS_URL: mixes"),
        ({"ROUTER_NATS_URL": "wss://a:443"}, "ROUTER_NATS_URL: expected a URL that starts with nats:// or tls://"),
        ({"ROUTER_NATS_URL": "ws://a:80"}, "ROUTER_NATS_URL: expected a URL that starts with nats:// or tls://"),
        ({"ROUTER_NATS_URL": "TLS://a:4222"}, "ROUTER_NATS_URL: expected a URL that starts with nats:// or tls://"),
        ({"ROUTER_NATS_URL": "nats://a:4222?tls=true"}, "ROUTER_NATS_URL: has a path or parameters after the port"),
        ({"ROUTER_NATS_URL": "nats://a:4222/tls"}, "ROUTER_NATS_URL: has a path or parameters after the port"),
        ({"ROUTER_NATS_URL": "nats://a:4222#tls"}, "ROUTER_NATS_URL: has a path or parameters after the port"),
        (
            {"ROUTER_NATS_URL": "nats://u:p@a:4222", "ROUTER_NATS_TOKEN": "t"},
            "ROUTER_NATS_TOKEN: the URL has a login too",
        ),
        ({"ROUTER_NATS_TLS_CERT": __file__}, "ROUTER_NATS_TLS_CERT: certificate and key go together"),
    ],
)
def test_contradictions_are_refused_at_start(environ: dict[str, str], named: str) -> None:
    """Each names its variable."""
    with pytest.raises(InvalidInput) as refused:
        load(environ)
    assert str(refused.value).startswith(named)


async def _ignore(_: Exception) -> None:
    """The call itself fails."""
