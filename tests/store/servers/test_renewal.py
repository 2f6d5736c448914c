"""Rotation on a real Redis: another password or client certificate, under load, without a refused row or call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from router.domain.decide.outcome import Admitted, Outcome
from router.errors import StoreError
from router.store.decide.calls import LaneSettings
from router.store.servers.cluster import Cluster
from router.store.servers.nodes import Nodes, SingleNode
from router.store.servers.options import Access
from tests.certificates import Authority
from tests.fleet.harness import until
from tests.servers import ValkeyCluster, ValkeyProcess
from tests.store.pods import Pod, ask, fresh_keys
from tests.tls_proxy import tls_in_front

PATIENT = LaneSettings(deadline_ms=10_000)
"""A handshake takes its time on a busy machine."""
USER = ("on", ">old", "~*", "&*", "+@all")
OLD, NEW = Access("rotated", "old"), Access("rotated", "new")


@pytest.fixture
def server(servers: None, tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server with a user for the pod."""
    with ValkeyProcess(tmp_path, args=("--user", "rotated", *USER)) as server:
        yield server


@pytest.fixture
def admin(server: ValkeyProcess) -> Iterator[Redis]:
    """An operator of that server."""
    with Redis(port=server.port, protocol=2) as admin:
        yield admin


class Load:
    """Rows and calls, all the time; faults are kept."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self.outcomes: list[Outcome] = []
        self.calls = 0

    async def rows(self) -> None:
        """Decide until cancelled."""
        while True:
            self.outcomes += await self._pod.decide(*(ask() for _ in range(5)))
            await asyncio.sleep(0.002)

    async def pings(self) -> None:
        """Call until cancelled; a fault ends it."""
        while True:
            await self._pod.nodes.call("GET", self._pod.keys.tenant("acme").head)
            self.calls += 1

    async def more(self) -> None:
        """Wait for further rows and calls."""
        rows, calls = len(self.outcomes) + 100, self.calls + 100
        await until(lambda: len(self.outcomes) > rows and self.calls > calls, 20, "load")


async def under_load(nodes: Nodes, act: Callable[[Pod, Load], Awaitable[None]]) -> None:
    """Act meanwhile; afterwards no row and no call has failed."""
    async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
        load = Load(pod)
        tasks = [asyncio.create_task(load.rows()), asyncio.create_task(load.pings())]
        await load.more()
        await act(pod, load)
        await load.more()
        for task in tasks:
            task.cancel()
        faults = [x for x in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(x, Exception)]
        assert faults == []
        assert {type(outcome) for outcome in load.outcomes} == {Admitted}
    await nodes.close()


async def renewed(pod: Pod, access: Access) -> None:
    """What `app.store` does."""
    await pod.nodes.renew(access)
    await pod.lanes.renew()


async def test_a_password_is_replaced_under_load(server: ValkeyProcess, admin: Redis) -> None:
    """The server has both for a while; then the old one is removed, and what the pod opens uses the new one."""

    async def act(pod: Pod, load: Load) -> None:
        admin.acl_setuser("rotated", enabled=True, passwords=["+new"])
        await renewed(pod, NEW)
        await load.more()
        admin.acl_setuser("rotated", enabled=True, passwords=["-old"])
        await load.more()
        connection = pod.nodes.connections(None)()
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.disconnect()

    await under_load(SingleNode(server.url, OLD), act)


async def test_a_password_that_is_refused_changes_nothing(server: ValkeyProcess, admin: Redis) -> None:
    """The file has it before the server: the error has Redis' words, and the old one serves; the next try works."""

    async def act(pod: Pod, load: Load) -> None:
        for _ in range(2):
            with pytest.raises(StoreError, match="invalid username-password pair"):
                await renewed(pod, NEW)
            await load.more()
        admin.acl_setuser("rotated", enabled=True, passwords=["+new"])
        await renewed(pod, NEW)

    await under_load(SingleNode(server.url, OLD), act)


async def test_connections_are_replaced_and_ended(server: ValkeyProcess, admin: Redis) -> None:
    """The lane's at its next call; the others soon. None of them is left over."""
    nodes = SingleNode(server.url, OLD)
    async with Pod(nodes, fresh_keys(), settings=PATIENT) as pod:
        await pod.decide(ask())
        await nodes.call("PING")
        before = {c["id"] for c in admin.client_list() if c["user"] == "rotated"}
        admin.acl_setuser("rotated", enabled=True, passwords=["+new"])
        await renewed(pod, NEW)
        await pod.decide(ask())
        await nodes.call("PING")

        def all_new() -> bool:
            return not before & {c["id"] for c in admin.client_list() if c["user"] == "rotated"}

        await until(all_new, 20, "the old connections end")
    await nodes.close()


@pytest.fixture
async def mutual(servers: None, tmp_path: Path) -> AsyncIterator[tuple[int, list[Access]]]:
    """A server behind TLS that trusts two authorities, and the access by a certificate of each, and of neither."""
    authorities = [Authority(tmp_path / name) for name in ("old", "new", "foreign")]
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(authority.ca.read_bytes() for authority in authorities[:2]))
    accesses = []
    for authority in authorities:
        own = authority.issue("pod")
        accesses.append(Access(tls_ca=str(both), tls_cert=str(own.cert), tls_key=str(own.key)))
    with ValkeyProcess(tmp_path / "data") as server:
        async with tls_in_front(server.port, authorities[1].issue("server").context(both)) as port:
            yield port, accesses


async def test_a_client_certificate_is_replaced_under_load(mutual: tuple[int, list[Access]]) -> None:
    """Both roads use the new one; one that the server does not trust, or a torn file, changes nothing."""
    port, (old, new, foreign) = mutual

    async def act(pod: Pod, load: Load) -> None:
        torn = Access(tls_ca=new.tls_ca, tls_cert=new.tls_cert, tls_key=old.tls_key)
        for wrong in (foreign, torn):
            with pytest.raises(StoreError):
                await renewed(pod, wrong)
            await load.more()
        await renewed(pod, new)

    await under_load(SingleNode(f"rediss://127.0.0.1:{port}", old, timeout_s=10), act)


async def test_a_clusters_password_is_replaced_under_load(servers: None, tmp_path: Path) -> None:
    """On every node."""
    with ValkeyCluster(tmp_path, args=("--user", "rotated", *USER)) as cluster:

        async def act(pod: Pod, load: Load) -> None:
            for node in cluster.nodes:
                node.ask("ACL", "SETUSER", "rotated", ">new")
            await renewed(pod, NEW)
            await load.more()
            for node in cluster.nodes:
                node.ask("ACL", "SETUSER", "rotated", "<old")

        nodes = Cluster(cluster.url, OLD, timeout_s=10)
        await nodes.open()
        await under_load(nodes, act)
