"""Servers that the whole session shares. A test that takes a server away starts one of its own (`tests.servers`)."""

from collections.abc import Iterator

import pytest

from tests.servers import NatsProcess, ServerProcess, ValkeyProcess
from tests.signals import default_signals_for_children


def pytest_configure() -> None:
    """Before the first child."""
    default_signals_for_children()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server; `make test-unit` runs the others."""
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker("server")


@pytest.fixture(scope="session")
def servers() -> None:
    """Requested, directly or through another fixture, by every test that starts or uses a server."""


@pytest.fixture(autouse=True)
def no_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that has not requested `servers` cannot start one, so that `make test-unit` stays what it is."""
    if "servers" not in request.fixturenames:
        monkeypatch.setattr(ServerProcess, "start", _refuse)


def _refuse(server: ServerProcess) -> None:
    pytest.fail(f"{type(server).__name__} is started by a test that does not request the fixture `servers`")


@pytest.fixture(scope="session")
def nats_url(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real NATS with JetStream and max_payload 4 MiB; shared, so tests take subjects and streams of their own."""
    with NatsProcess(tmp_path_factory.mktemp("nats")) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey, no persistence, noeviction; shared, so a test takes a fresh tenant and never flushes."""
    with ValkeyProcess(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
