"""A pod on a real Cluster of three nodes: every partition's own node, and slots that move under it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from redis.crc import key_slot

from router.domain.decide.outcome import Admitted, LimitHit, Replay, Unavailable
from router.domain.policy.limits import limit
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.domain.tasks.task import Action, BreakerTurn, Moved
from router.domain.tasks.task import Move as TaskMove
from router.errors import StoreError, StoreUnavailable
from router.store.decide.calls import LaneSettings
from router.store.keys import Keys
from router.store.policies import RedisPolicies
from router.store.servers.cluster import Cluster
from router.store.servers.nodes import SingleNode
from router.store.servers.replicas import Replicas
from router.store.tasks.store import RedisTasks, settle_script
from tests.clusters import Move, follow, wait
from tests.servers import ValkeyCluster, ValkeyNode, free_port
from tests.store.harness import FEATURES, MINUTE, Ask, policy, request, undispatched
from tests.store.pods import Pod

PATIENT = LaneSettings(deadline_ms=5_000, retry_ms=20)
TEN = policy("a", limits=[limit("l", Scope.TENANT, Resource.REQUESTS, 10, MINUTE)])


@pytest.fixture(scope="module", params=["ip", "unknown-endpoint", "hostname"])
def valkey_cluster(
    servers: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ValkeyCluster]:
    """A Cluster that lists its nodes by address, without a host, or by host names that none of them has."""
    kind: str = request.param
    with ValkeyCluster(tmp_path_factory.mktemp(kind), ("--cluster-preferred-endpoint-type", kind)) as cluster:
        yield cluster


@pytest.fixture
async def nodes(valkey_cluster: ValkeyCluster) -> AsyncIterator[Cluster]:
    """A pod's client of the Cluster."""
    client = Cluster(valkey_cluster.url)
    await client.open()
    yield client
    await client.close()


@pytest.fixture
async def pod(nodes: Cluster) -> AsyncIterator[Pod]:
    """A pod on the Cluster, patient enough to outlast a slot's move."""
    async with Pod(nodes, Keys(schema=f"t{token_hex(5)}"), settings=PATIENT) as opened:
        yield opened


def asks(tenant: str, start: int, count: int) -> list[Ask]:
    """Requests against ten a minute."""
    return [Ask(request(tenant, f"r{i}"), TEN) for i in range(start, start + count)]


async def test_tenants_of_all_nodes_in_one_tick(pod: Pod) -> None:
    """A hundred tenants over three nodes: each is decided once and replayed once."""
    wanted = [Ask(request(f"tenant{i}", "r"), TEN) for i in range(100)]
    assert {type(o) for o in await pod.decide(*wanted)} == {Admitted}
    assert {type(o) for o in await pod.decide(*wanted)} == {Replay}
    assert len({pod.lanes.of(pod.keys.tenant(f"tenant{i}").partition)[0] for i in range(100)}) == 3


async def test_limits_hold_on_a_cluster(pod: Pod) -> None:
    """Of fifty requests in one tick ten are admitted."""
    outcomes = await pod.decide(*asks("acme", 0, 50))
    assert [type(o) for o in outcomes].count(Admitted) == 10


async def test_policies_and_results_on_a_cluster(pod: Pod, nodes: Cluster) -> None:
    """The other adapters of the store find their nodes too, also for many tenants in one call."""
    policies = RedisPolicies(nodes, pod.keys)
    document = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'
    assert await policies.apply("acme", policy_id="default", document=document, expect_revision=0) == 1
    assert await policies.load("acme") is not None
    assert [p.revision for p in await policies.history("acme", policy_id="default")] == [1]
    made = await pod.decide(*(Ask(request(f"tenant{i}", "r"), TEN) for i in range(20)))
    moves = [
        undispatched(f"tenant{i}", o.decision_id, BreakerVerdict.NEITHER, usage=b"u")
        for i, o in enumerate(made)
        if isinstance(o, Admitted)
    ]
    tasks = RedisTasks(pod.keys, nodes, shared_calls=False)
    assert await tasks.move(moves) == [Moved(BreakerTurn.UNCHANGED)] * 20
    waiting = await tasks.usage_waiting(100)
    assert {w.usage_id for w in waiting} == {m.decision_id for m in moves}
    assert await tasks.usage_published([w.usage_id for w in waiting]) == 20
    assert await tasks.usage_waiting(100) == []
    assert (await tasks.claim(1_000, maximum=10)).task_ids == ()


async def test_a_forgotten_script_on_one_node(pod: Pod, valkey_cluster: ValkeyCluster) -> None:
    """A node that lost its scripts (a failover) gets them again."""
    wanted = [Ask(request(f"tenant{i}", "r"), TEN) for i in range(30)]
    await pod.decide(*wanted)
    valkey_cluster.nodes[1].ask("SCRIPT", "FLUSH")
    valkey_cluster.nodes[1].ask("FUNCTION", "FLUSH")
    again = [Ask(request(f"tenant{i}", "s"), TEN) for i in range(30)]
    assert {type(o) for o in await pod.decide(*again)} == {Admitted}


async def test_a_forgotten_library_of_the_general_client(nodes: Cluster, valkey_cluster: ValkeyCluster) -> None:
    """Settle finds the node of each key, and nodes that lost its library get it again."""
    tasks = RedisTasks(Keys(f"t{token_hex(5)}"), nodes, shared_calls=False)
    notes = [TaskMove(f"tenant{i}", bytes(16), Action.RESULT_LATE, FEATURES, note=True) for i in range(12)]
    for lost in ((0, 1, 2), (1,), ()):
        for n in lost:
            valkey_cluster.nodes[n].ask("FUNCTION", "FLUSH")
        assert await tasks.move(notes) == [Moved(BreakerTurn.UNCHANGED)] * len(notes)
    assert all(settle_script().call[1].decode() in n.ask("FUNCTION", "LIST") for n in valkey_cluster.nodes)


async def test_the_general_client_reads_and_writes_everywhere(pod: Pod, nodes: Cluster) -> None:
    """Single commands, batches and scans find the node of each key, also of those whose key is not the first word."""
    keys = [pod.keys.tenant(f"tenant{i}").figures for i in range(30)]
    for key in keys:
        await nodes.call("SET", key, b"v")
    assert await nodes.gather([("GET", k) for k in keys]) == [b"v"] * 30
    assert all(await nodes.gather([("MEMORY", "USAGE", k, "SAMPLES", 5) for k in keys]))
    assert set(await nodes.scan(f"{pod.keys.schema}:*", 100, 1000)) == set(keys)
    assert len(await nodes.each("PING")) == 3
    for key in keys:
        assert await nodes.call("EXISTS", key, key) == 2
        assert await nodes.call("UNLINK", key) == 1


async def test_a_client_for_one_server_names_the_setting(valkey_cluster: ValkeyCluster) -> None:
    """A node of a Cluster is met without ROUTER_REDIS_CLUSTER: at the start, and if INFO is blocked by a refusal."""
    for node in valkey_cluster.nodes:
        client = SingleNode(node.url)
        with pytest.raises(StoreError, match="set ROUTER_REDIS_CLUSTER=true"):
            await client.open()
        refusals = await asyncio.gather(*(client.call("SET", f"k{i}", 1) for i in range(20)), return_exceptions=True)
        assert any("set ROUTER_REDIS_CLUSTER=true" in str(r) for r in refusals)
        with pytest.raises(StoreError, match="set ROUTER_REDIS_CLUSTER=true"):
            await client.gather([("GET", f"k{i}") for i in range(20)])
        await client.close()


async def test_a_cluster_client_on_one_server_names_the_setting(redis_url: str) -> None:
    """The other way round."""
    client = Cluster(redis_url.removesuffix("/0"))
    with pytest.raises(StoreError, match="set ROUTER_REDIS_CLUSTER=false"):
        await client.open()
    await client.close()


# A slot on the move


def slot_of(pod: Pod, tenant: str) -> int:
    """The slot of a tenant's partition."""
    return key_slot(pod.keys.tag(pod.keys.tenant(tenant).partition))


async def test_a_moved_slot_is_followed(pod: Pod, valkey_cluster: ValkeyCluster) -> None:
    """After a slot has moved with its keys, usage and answers are what they were, without a lost decision."""
    await pod.decide(*asks("moved", 0, 6))
    move = Move(valkey_cluster, slot_of(pod, "moved"))
    await asyncio.to_thread(move.begin)
    await asyncio.to_thread(move.keys)
    await asyncio.to_thread(move.end)
    outcomes = await pod.decide(*asks("moved", 0, 6), *asks("moved", 10, 10))
    await asyncio.to_thread(move.refused, "MOVED")
    assert [type(o) for o in outcomes] == [Replay] * 6 + [Admitted] * 4 + [LimitHit] * 6
    await asyncio.to_thread(move.source.ask, "CONFIG", "RESETSTAT")
    assert {type(o) for o in await pod.decide(*asks("moved", 0, 6))} == {Replay}
    assert "MOVED" not in await asyncio.to_thread(move.source.ask, "INFO", "errorstats")


async def test_a_slot_on_the_move_with_replicas(pod: Pod, nodes: Cluster, valkey_cluster: ValkeyCluster) -> None:
    """What must have replicas goes where the slot is, before, during and after its move, and is executed once.

    Minus one replica: every node has as many, so that only the way is seen.
    """
    replicas = Replicas(nodes, -1)
    policies = RedisPolicies(nodes, pod.keys, replicas=replicas)
    documents = [b'{"providers":[{"name":"%c","weight":100}],"version":"1.0"}' % name for name in b"abcd"]
    tenants = [f"tenant{i}" for i in range(30)]
    for tenant in (*tenants, "guest"):
        assert await policies.apply(tenant, policy_id="default", document=documents[0], expect_revision=0) == 1
    move = Move(valkey_cluster, slot_of(pod, "guest"))
    await asyncio.to_thread(move.begin)
    await asyncio.to_thread(move.keys)

    async def during() -> int:
        """A redirection to a node without a name is refused, and comes again, as deliveries do."""
        while True:
            try:
                return await policies.apply("guest", policy_id="default", document=documents[1], expect_revision=1)
            except StoreError:
                await asyncio.sleep(0.05)

    applying = asyncio.create_task(during())
    await asyncio.to_thread(move.refused, "ASK")
    await asyncio.to_thread(move.end)
    assert await asyncio.wait_for(applying, 30) == 2
    assert await policies.apply("guest", policy_id="default", document=documents[2], expect_revision=2) == 3
    assert await policies.delete("guest", policy_id="default", expect_revision=3) == 4
    await replicas.close()


async def test_decides_during_a_move_wait_for_its_end(pod: Pod, valkey_cluster: ValkeyCluster) -> None:
    """ASK and TRYAGAIN while the keys go over: rows are answered once the slot has moved, and none is counted twice."""
    tenant, fresh = "asked", "another"
    await pod.decide(*asks(tenant, 0, 6))
    move = Move(valkey_cluster, slot_of(pod, tenant))
    await asyncio.to_thread(move.begin)
    during = [pod.submit(a) for a in asks(tenant, 10, 10)]
    await asyncio.to_thread(move.refused, "TRYAGAIN")
    await asyncio.to_thread(move.keys)
    later = [pod.submit(a) for a in asks(tenant, 0, 6)]
    await asyncio.to_thread(move.end)
    outcomes = await asyncio.wait_for(asyncio.gather(*during, *later), 10)
    assert [type(o) for o in outcomes] == [Admitted] * 4 + [LimitHit] * 6 + [Replay] * 6
    assert {type(o) for o in await pod.decide(*asks(fresh, 0, 3))} == {Admitted}


async def test_a_tenant_without_keys_during_a_move(pod: Pod, valkey_cluster: ValkeyCluster) -> None:
    """A tenant of whom the source knows nothing is asked for at the target, and decided there at the latest after."""
    tenant = "unknown.yet"
    move = Move(valkey_cluster, slot_of(pod, tenant))
    await asyncio.to_thread(move.begin)
    during = [pod.submit(a) for a in asks(tenant, 0, 12)]
    await asyncio.to_thread(move.refused, "ASK")
    await asyncio.to_thread(move.keys)
    await asyncio.to_thread(move.end)
    outcomes = await asyncio.wait_for(asyncio.gather(*during), 10)
    assert [type(o) for o in outcomes] == [Admitted] * 10 + [LimitHit] * 2


async def test_a_cluster_that_is_away(servers: None, tmp_path: Path) -> None:
    """Nobody there at boot, or later: the store is unavailable, in our own words; a pod waits for it and lives on."""
    nobody = Cluster(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable):
        await nobody.open()
    with pytest.raises(StoreUnavailable):
        await nobody.call("GET", "x")
    with pytest.raises(StoreUnavailable):
        nobody.address_of(b"x")
    await nobody.close()
    with ValkeyCluster(tmp_path) as cluster:
        nodes = Cluster(cluster.url)
        await nodes.open()
        async with Pod(nodes, Keys(schema=f"t{token_hex(5)}"), settings=LaneSettings(deadline_ms=1_000)) as pod:
            assert {type(o) for o in await pod.decide(*asks("acme", 0, 1))} == {Admitted}
            for node in cluster.nodes:
                await asyncio.to_thread(node.kill)
            for _ in range(3):
                pod.lanes.tick()
                assert {type(o) for o in await pod.decide(*asks("acme", 1, 3))} == {Unavailable}
                with pytest.raises(StoreError):
                    await nodes.call("GET", "x")
        await nodes.close()


async def test_a_node_that_died_is_replaced_by_its_replica(servers: None, tmp_path: Path) -> None:
    """A dead node tells nobody where its slots went: the others are asked, nobody waits for the old one any more, and
    what it had decided is replayed by its replica."""
    with ValkeyCluster(tmp_path) as cluster:
        replica = ValkeyNode(tmp_path / "replica").start()
        try:
            dying = cluster.nodes[2]
            await asyncio.to_thread(follow, cluster.nodes[0], dying, replica)
            nodes = Cluster(cluster.url)
            await nodes.open()
            settings = LaneSettings(deadline_ms=1_000, retry_ms=20)
            async with Pod(nodes, Keys(schema=f"t{token_hex(5)}"), settings=settings) as pod:
                wanted = [Ask(request(f"tenant{i}", "r"), TEN) for i in range(30)]
                assert {type(o) for o in await pod.decide(*wanted)} == {Admitted}
                await asyncio.to_thread(_in_step, dying, replica)
                await asyncio.to_thread(dying.kill)
                pod.lanes.tick()
                await asyncio.wait_for(pod.fell.wait(), 5)
                await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER", "TAKEOVER")
                give_up = time.monotonic() + 15
                while {type(o) for o in await pod.decide(*wanted)} != {Replay}:
                    assert time.monotonic() < give_up
                    pod.lanes.tick()
                    await asyncio.sleep(0.05)
                assert not pod.lanes.down
                assert pod.up.is_set()
            await nodes.close()
        finally:
            replica.stop()


def _in_step(of: ValkeyNode, replica: ValkeyNode) -> None:
    wait(lambda: of.ask("DBSIZE") == replica.ask("DBSIZE"))
