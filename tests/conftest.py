"""Servers that the whole session shares. A test that takes a server away starts one of its own (`tests.servers`).

`tests.servers` imports `router`, and `tests.mutation` forks before that: so it is imported in functions here.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.examples import QUICK
from tests.signals import default_signals_for_children

if TYPE_CHECKING:
    from tests.servers import ValkeyProcess

# No deadline: on a loaded machine an example may take any time. A test that hangs is ended by pytest's timeout.
settings.register_profile("all", deadline=None)
settings.register_profile("unit", deadline=None, max_examples=QUICK)
settings.load_profile("all")


def pytest_configure() -> None:
    """Before the first child."""
    default_signals_for_children()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server; `make test-unit` runs the others."""
    for item in items:
        if _needs_server(item):
            item.add_marker("server")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: a test that does not request `servers` cannot start one, so `make test-unit` needs none."""
    from tests.servers import ServerProcess  # noqa: PLC0415

    ServerProcess.may_start = _needs_server(item)


@pytest.fixture(scope="session")
def servers() -> None:
    """Requested, directly or through another fixture, by every test that starts or uses a server."""


def _needs_server(item: pytest.Item) -> bool:
    return "servers" in getattr(item, "fixturenames", ()) or item.get_closest_marker("server") is not None


@pytest.fixture(scope="session")
def nats_url(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real NATS with JetStream and max_payload 4 MiB; shared, so tests take subjects and streams of their own."""
    from tests.servers import NatsProcess  # noqa: PLC0415

    with NatsProcess(tmp_path_factory.mktemp("nats")) as server:
        yield server.url


@pytest.fixture(scope="session")
def valkey(servers: None, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ValkeyProcess]":
    """A real Valkey, no persistence, noeviction; shared, so a test takes a fresh tenant and never flushes."""
    from tests.servers import ValkeyProcess  # noqa: PLC0415

    with ValkeyProcess(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(valkey: "ValkeyProcess") -> str:
    """The address of the session's Valkey."""
    return valkey.url


@pytest.fixture(scope="session")
def pod_redis_url(valkey: "ValkeyProcess") -> str:
    """The same for a pod, which may have least rights."""
    return valkey.pod_url
