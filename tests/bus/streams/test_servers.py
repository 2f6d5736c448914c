"""The helpers that start real servers."""

import os
import socket
from pathlib import Path

import pytest

from tests import servers
from tests.servers import NatsProcess, ValkeyProcess


def test_both_servers_answer(nats_url: str, redis_url: str) -> None:
    """The session's servers are up when a test gets their addresses."""
    for url, greeting in ((nats_url, b"INFO"), (redis_url, b"")):
        host, port = url.removeprefix("nats://").removeprefix("redis://").split("/")[0].split(":")
        with socket.create_connection((host, int(port)), timeout=1) as connection:
            assert connection.recv(4) == greeting if greeting else True


def test_a_killed_server_comes_back_on_its_port(servers: None, tmp_path: Path) -> None:
    """kill() and start() keep the port, and the process is another one."""
    server = ValkeyProcess(tmp_path).start()
    try:
        before = (server.port, server.pid)
        server.kill()
        server.start()
        assert server.port == before[0]
        assert server.pid != before[1]
    finally:
        server.stop()


def test_stop_leaves_no_process(servers: None, tmp_path: Path) -> None:
    """After stop() the pid is gone."""
    with NatsProcess(tmp_path) as server:
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_binary_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI=true turns the skip into a failure."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        servers.missing("nats-server")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        servers.missing("nats-server")
