"""Why there is no connection, in words that name the cause and the setting to look at; on real servers."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from msgspec.structs import replace

from router.bus.client.causes import cause
from router.bus.client.connection import Bus
from router.bus.client.options import BusOptions
from router.bus.client.permissions import Permissions
from router.bus.client.reporter import Reporter
from router.nats_tls import TlsRefused
from tests.certificates import Authority, Certificate
from tests.servers import NatsProcess, free_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that the client is given."""
    return Authority(tmp_path_factory.mktemp("authority"))


async def reads(options: BusOptions, *words: str) -> None:
    """The reason has these words, first, last and two seconds later: what follows a cause does not replace it."""
    bus = Bus(replace(options, connect_timeout_s=1.0))
    await bus.start()
    try:
        give_up = time.monotonic() + 15
        while not all(word in bus.last_error for word in words):
            assert time.monotonic() < give_up, bus.last_error
            await asyncio.sleep(0.01)
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert all(word in bus.last_error for word in words), bus.last_error
            await asyncio.sleep(0.01)
        assert not bus.connected
    finally:
        await bus.close()


@contextlib.asynccontextmanager
async def running(folder: Path, extra: str) -> AsyncIterator[NatsProcess]:
    """A server with this addition to its configuration."""
    server = NatsProcess(folder / "nats", extra=extra)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.stop)


def tls(made: Certificate, more: str = "") -> str:
    """TLS on."""
    return f"tls {{ cert_file: '{made.cert}', key_file: '{made.key}' {more} }}"


OTHER = "ROUTER_NATS_TLS_CA must hold the authority that signed"
CERTIFICATES: dict[str, tuple[str, ...]] = {
    "other authority": ("certificate: ", "issuer certificate", OTHER),
    "expired": ("certificate: certificate has expired: ", "renew"),
    "not yet valid": ("certificate: certificate is not yet valid: ", "clocks"),
    "other address": ("certificate: IP address mismatch", "host in ROUTER_NATS_URL"),
    "client has none": ("certificate: the server says 'tlsv13 alert certificate required'", "ROUTER_NATS_TLS_CERT"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_a_certificate_is_the_cause(servers: None, tmp_path: Path, authority: Authority, case: str) -> None:
    """Of the server, which the client refuses, or of the client, which the server refuses."""
    ca, more = str(authority.ca), ""
    match case:
        case "other authority":
            made, ca = authority.issue("good"), str(Authority(tmp_path / "other").ca)
        case "expired":
            made = authority.issue_between("old", "20200101000000Z", "20210101000000Z")
        case "not yet valid":
            made = authority.issue_between("future", "20400101000000Z", "20410101000000Z")
        case "other address":
            made = authority.issue("elsewhere", "IP:127.0.0.9")
        case _:
            made, more = authority.issue("good"), f", ca_file: '{authority.ca}', verify: true"
    async with running(tmp_path, tls(made, more)) as server:
        await reads(BusOptions((server.url.replace("nats:", "tls:"),), tls_ca=ca), *CERTIFICATES[case])


USER = "authorization { user: u, password: p }"
LOGINS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "none": (USER, {}, ("no login is set", "ROUTER_NATS_USER", "ROUTER_NATS_TOKEN", "ROUTER_NATS_CREDS_FILE")),
    "password": (USER, {"user": "u", "password": "secret"}, ("ROUTER_NATS_USER (u) and ROUTER_NATS_PASSWORD",)),
    "user": (USER, {"user": "v", "password": "p"}, ("ROUTER_NATS_USER (v) and ROUTER_NATS_PASSWORD",)),
    "token": ("authorization { token: t }", {"token": "secret"}, ("check ROUTER_NATS_TOKEN",)),
    "url": (USER, {"urls": "u:secret@"}, ("check the login in ROUTER_NATS_URL",)),
}


@pytest.mark.parametrize("case", LOGINS)
async def test_a_refused_login_is_the_cause(servers: None, tmp_path: Path, case: str) -> None:
    """The server's words and the settings to look at; never a secret."""
    extra, login, words = LOGINS[case]
    async with running(tmp_path, extra) as server:
        login = dict(login)
        url = server.url.replace("//", f"//{login.pop('urls', '')}")
        options = BusOptions((url,), **login)
        await reads(options, "authorization: the server says 'Authorization Violation'", *words)
        assert "secret" not in cause(nats.errors.Error("nats: 'Authorization Violation'"), options)


async def test_a_server_that_cannot_be_reached() -> None:
    """Nobody listens, the name is unknown, or nothing is answered."""
    await reads(BusOptions((f"nats://127.0.0.1:{free_port()}",)), "unreachable: ", "127.0.0.1")
    await reads(BusOptions(("nats://no-such-host.invalid:4222",)), "unreachable: ", "check the host in ROUTER_NATS_URL")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        await reads(BusOptions((f"nats://127.0.0.1:{port}",)), "unreachable: no answer within 1 s")


@pytest.mark.parametrize(
    "greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"INFO {\r\n"]
)
async def test_what_is_no_nats_server(greeting: bytes) -> None:
    """Another server's port, or one that closes at once."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await reads(BusOptions((f"nats://127.0.0.1:{port}",)), "protocol: ", "no NATS server; check ROUTER_NATS_URL")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (nats.errors.Error("nats: 'User Authentication Expired'"), "authorization: the server says"),
        (nats.errors.Error("nats: 'Authentication Timeout'"), "authorization: the server says"),
        (nats.errors.Error("nats: 'User Authentication Revoked'"), "authorization: the server says"),
        (nats.errors.Error("nats: 'maximum connections exceeded'"), "nats: 'maximum connections exceeded'"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "certificate: no TLS handshake: "),
        (OSError(113, "No route to host"), "unreachable: No route to host"),
        (ValueError(), "ValueError()"),
    ],
)
def test_further_causes(error: Exception, words: str) -> None:
    """What a server says when an account or a certificate ends, and what has no kind."""
    assert cause(error, BusOptions(("nats://a",), user="u", password="secret")).startswith(words)  # noqa: S106


_REFUSED = ConnectionRefusedError(111, "Connect call failed")
_NO_INFO = nats.errors.Error("nats: empty response from server when expecting INFO message")
_NO_LOGIN = nats.errors.Error("nats: 'Authorization Violation'")


@pytest.mark.parametrize(
    ("errors", "causes"),
    [
        ([_REFUSED, _REFUSED, _REFUSED], ["unreachable"]),
        ([_NO_INFO, TlsRefused("nats: n:4222 offers no TLS"), _NO_INFO], ["protocol", "nats: n:4222 offers no TLS"]),
        ([_REFUSED, _NO_LOGIN, _REFUSED, _NO_LOGIN], ["unreachable", "authorization"]),
        ([_NO_LOGIN, nats.errors.UnexpectedEOF()], ["authorization"]),
        ([TimeoutError(), socket.gaierror(-2, "Name or service not known")], ["unreachable: no", "unreachable: Name"]),
    ],
    ids=["the same", "TLS taken away", "a login refused", "what follows a cause", "of one kind"],
)
async def test_another_cause_is_logged_at_once(
    errors: list[Exception], causes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One line a minute for each cause: the first one may be over, and would mislead."""
    options = BusOptions(("nats://n:4222",))
    reporter = Reporter(Permissions("_INBOX"), options)
    for error in errors:
        await reporter.failed(error)
    lines = [r.getMessage().removeprefix("cannot reach NATS; retrying: ") for r in caplog.records]
    assert [line[: len(start)] for line, start in zip(lines, causes, strict=True)] == causes
