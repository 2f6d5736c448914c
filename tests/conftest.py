"""Servers that the whole session shares. A test that takes a server away starts one of its own (`tests.servers`)."""

from collections.abc import Iterator

import pytest

from tests.servers import NatsProcess, ValkeyProcess
from tests.signals import default_signals_for_children


def pytest_configure() -> None:
    """Before the first child."""
    default_signals_for_children()


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real NATS with JetStream and max_payload 4 MiB; shared, so tests take subjects and streams of their own."""
    with NatsProcess(tmp_path_factory.mktemp("nats")) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey, no persistence, noeviction; shared, so a test takes a fresh tenant and never flushes."""
    with ValkeyProcess(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
