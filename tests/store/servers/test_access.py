"""Who we are to Redis, and how many replicas must have a decision: on servers of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis

from router.domain.outcome import Admitted, Unavailable
from router.errors import StoreError
from router.store.decide.calls import LaneSettings
from router.store.servers.nodes import SingleNode
from router.store.servers.options import Access
from tests.servers import ValkeyProcess
from tests.store.pods import Pod, ask, fresh_keys

ACL = ("--user", "router", "on", ">sesame", "~*", "&*", "+@all")
CAREFUL = LaneSettings(deadline_ms=500, wait_replicas=1)


@pytest.fixture
async def primary(servers: None, tmp_path: Path) -> AsyncIterator[ValkeyProcess]:
    """A primary that no replica follows yet."""
    with ValkeyProcess(tmp_path / "primary") as server:
        yield server


async def test_a_decision_that_no_replica_has_is_not_told(primary: ValkeyProcess) -> None:
    """ROUTER_WAIT_REPLICAS=1 without a replica: nobody knows what will be left of it."""
    nodes = SingleNode(primary.url)
    async with Pod(nodes, fresh_keys(), settings=CAREFUL) as pod:
        assert await pod.decide(ask()) == [Unavailable(sent=True)]
    await nodes.close()


async def test_a_decision_that_a_replica_has_is_told(primary: ValkeyProcess, tmp_path: Path) -> None:
    """With a replica that follows, the answer is as always."""
    follow = ("--replicaof", "127.0.0.1", str(primary.port))
    with ValkeyProcess(tmp_path / "replica", args=follow), Redis.from_url(primary.url) as client:
        for _ in range(40):
            client.incr("nudge")
            if client.wait(1, 500):
                break
        nodes = SingleNode(primary.url)
        async with Pod(nodes, fresh_keys(), settings=CAREFUL) as pod:
            (outcome,) = await pod.decide(ask())
            assert isinstance(outcome, Admitted)
        await nodes.close()


async def test_a_named_user(servers: None, tmp_path: Path) -> None:
    """Both roads log in: the decide lane and the general client."""
    with ValkeyProcess(tmp_path, args=ACL) as server:
        nodes = SingleNode(server.url, Access("router", "sesame"))
        async with Pod(nodes, fresh_keys()) as pod:
            (outcome,) = await pod.decide(ask())
            assert isinstance(outcome, Admitted)
            assert await nodes.call("ACL", "WHOAMI") == b"router"
        await nodes.close()


async def test_a_wrong_password(servers: None, tmp_path: Path) -> None:
    """It is told as the store being away, with the server's word and without the password."""
    with ValkeyProcess(tmp_path, args=ACL) as server:
        nodes = SingleNode(server.url, Access("router", "simsalabim"))
        with pytest.raises(StoreError) as fault:
            await nodes.open()
        assert "invalid username-password pair" in str(fault.value)
        assert "simsalabim" not in str(fault.value)
        await nodes.close()
