"""Who we are to Redis, and how many replicas must have a decision: on servers of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from router.domain.decide.outcome import Admitted, Unavailable
from router.errors import StoreError, StoreUnavailable
from router.store.decide.calls import LaneSettings
from router.store.servers.link import Link
from router.store.servers.nodes import SingleNode
from router.store.servers.options import Access
from router.store.servers.refusals import unavailable
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


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access("router", "simsalabim"), "invalid username-password pair"),
        (Access("somebody", "sesame"), "invalid username-password pair"),
        (Access("router", ""), "invalid username-password pair"),
    ],
    ids=["password", "user", "empty"],
)
async def test_a_refused_login_names_the_settings(servers: None, tmp_path: Path, access: Access, words: str) -> None:
    """On both roads, the decide lane's connection and the general client."""
    with ValkeyProcess(tmp_path, args=ACL) as server:
        nodes = SingleNode(server.url, access)
        link = Link(nodes.connections(None), 1.0)
        for road in (nodes.open(), link.ask([("PING",)])):
            with pytest.raises(StoreUnavailable) as fault:
                await road
            assert str(fault.value).startswith(f"Redis refuses the login: {words}")
            assert "check ROUTER_REDIS_USERNAME and ROUTER_REDIS_PASSWORD" in str(fault.value)
            assert "simsalabim" not in str(fault.value)
        await nodes.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (AuthenticationError("Authentication required."), "Redis refuses the login: Authentication required: check "),
        (ConnectionError("Error 111 connecting to 127.0.0.1:1."), "Redis: Error 111 connecting to 127.0.0.1:1."),
        (OSError("gone"), "Redis: gone"),
    ],
)
def test_only_a_refused_login_is_about_settings(fault: Exception, words: str) -> None:
    """A server that wants a login and gets none, and those that are not reached."""
    assert unavailable(fault).startswith(words)
