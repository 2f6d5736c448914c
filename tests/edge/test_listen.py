"""The listening socket: IPv4, IPv6 or both; and the limit of open files."""

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from router.edge.http.listen import listening_socket, raise_open_files
from router.edge.http.server import HttpServer
from router.edge.http.site import Response, site

HAS_IPV6 = socket.has_dualstack_ipv6()
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")


@contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    """A socket on a free port."""
    opened = listening_socket(host, 0, backlog=16)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        pytest.param("::", "[::]", marks=needs_ipv6),
        pytest.param("::1", "[::1]", marks=needs_ipv6),
    ],
)
async def test_the_log_has_the_address_as_in_a_url(host: str, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    """An IPv6 address stands in brackets, so that the port is its own."""
    caplog.set_level("INFO")
    server = HttpServer(site({}))
    port = await server.start(host, 0)
    await server.stop()
    (line,) = [r.getMessage() for r in caplog.records if "listening" in r.getMessage()]
    assert line.startswith(f"listening on {shown}:{port}, ")


def reaches(address: str, opened: socket.socket) -> bool:
    """Whether a client gets through."""
    try:
        socket.create_connection((address, opened.getsockname()[1]), timeout=5).close()
    except OSError:
        return False
    return True


@needs_ipv6
def test_the_default_takes_both_families() -> None:
    """IPV6_V6ONLY is off on the socket itself, whatever the system's default is."""
    with listening("::") as opened:
        assert opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
        assert reaches("127.0.0.1", opened)
        assert reaches("::1", opened)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])  # noqa: S104
def test_an_ipv4_address_is_taken_as_it_is(host: str) -> None:
    """And so is a name."""
    with listening(host) as opened:
        assert opened.family is socket.AF_INET or host == "localhost"
        assert reaches("127.0.0.1", opened) or host == "localhost"


@needs_ipv6
def test_one_ipv6_address_is_no_ipv4() -> None:
    """A literal of one interface."""
    with listening("::1") as opened:
        assert reaches("::1", opened)
        assert not reaches("127.0.0.1", opened)


def test_without_ipv6_it_is_ipv4_with_a_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel without IPv6: the pod is reached nevertheless."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listening("::") as opened:
        assert opened.getsockname()[0] == "0.0.0.0"  # noqa: S104
        assert reaches("127.0.0.1", opened)
    assert [r.getMessage() for r in caplog.records] == ["no IPv6 on this machine: listening on 0.0.0.0"]


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "2001:db8::1"])
def test_an_address_of_others_is_an_error(host: str) -> None:
    """It is not silently another one."""
    with pytest.raises(OSError, match=r".+"):
        listening_socket(host, 0, backlog=16)


def test_the_limit_of_open_files_is_raised() -> None:
    """To its hard bound, in a process that begins with less."""
    code = (
        "import resource; _, hard = resource.getrlimit(resource.RLIMIT_NOFILE);hard = min(hard, 4096) if hard > 0 else "
        "4096;resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); "
        "from router.edge.http.listen import raise_open_files; "
        "assert raise_open_files() == hard;assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(("files", "maximum"), [(1000, 500), (100_000, 2048), (None, 2048), (1, 1)])
async def test_connections_take_half_of_the_files_at_most(
    files: int | None, maximum: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other half is for NATS and Redis."""
    monkeypatch.setattr("router.edge.http.server.raise_open_files", lambda: files)
    caplog.set_level("INFO")
    server = HttpServer(site({"/livez": lambda: Response(200, b"{}")}))
    await server.start("127.0.0.1", 0)
    await server.stop()
    assert f"{maximum} connections" in caplog.text


def test_an_unlimited_process_has_no_bound_of_files() -> None:
    """None says so."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_open_files() is None or soft != resource.RLIM_INFINITY
