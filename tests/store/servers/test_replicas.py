"""ROUTER_WAIT_REPLICAS beside decisions: nothing that somebody was told of is forgotten by a failover."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from redis import Redis

from router.domain.audit.records import Actor
from router.domain.decide.outcome import Admitted
from router.domain.decide.request import Options
from router.domain.ids import assignment_id, name_in, task_id, to_text
from router.domain.tasks.task import TaskRecord, TaskState
from router.errors import NotReplicated, StoreError, StoreUnavailable
from router.store.claims import RedisClaims
from router.store.decisions import RedisDecisions
from router.store.keys import Keys, marker_beside
from router.store.levers import RedisLevers, lever_scripts
from router.store.policies import RedisPolicies
from router.store.servers.nodes import SingleNode
from router.store.servers.replicas import Replicas
from router.store.tasks.store import RedisTasks
from router.store.tenants.walk import RedisTenants
from tests.servers import ValkeyProcess
from tests.store.harness import Ask, policy, request
from tests.store.pods import Pod, fresh_keys
from tests.usecases.fakes.bus import Message
from tests.usecases.fakes.settling import INBOX, TENANT, Fate, World, result

BY = Actor(principal="ann", role="admin")
DOCUMENT = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'
SHORT_MS = 20
BUSY_S = 60.0
"""How long anything may take on a busy machine."""


class Alone:
    """Adapters of a pod whose Redis has no replica, and which wants one."""

    def __init__(self, pod: Pod, replicas: Replicas) -> None:
        keys, nodes = pod.keys, pod.nodes
        self.keys, self.nodes = keys, nodes
        self.world = World(pod, replicas=replicas)
        self.tasks: RedisTasks = self.world.tasks
        self.policies = RedisPolicies(nodes, keys, replicas=replicas)
        self.levers = RedisLevers(keys, nodes, lever_scripts(), replicas=replicas)
        self.claims = RedisClaims(keys, nodes, replicas)
        self.tenants = RedisTenants(keys, nodes, replicas)
        self.decisions = RedisDecisions(keys, nodes, pod.lanes, wait_ms=1_000, replicas=replicas)


@pytest.fixture
async def alone(redis_url: str) -> AsyncIterator[Alone]:
    """See `Alone`."""
    nodes = SingleNode(redis_url)
    replicas = Replicas(nodes, 1, wait_ms=SHORT_MS)
    async with Pod(nodes, fresh_keys()) as pod:
        yield Alone(pod, replicas)
    await replicas.close()
    await nodes.close()


async def settled(here: Alone) -> None:
    """A result of a task, with usage and a final result for its caller."""
    made = await here.world.ask("r", 1, result_subject=INBOX)
    done = result(assignment_id=to_text(assignment_id(task_id(made.decision_id), 1)))
    await here.world.hands(Fate()).settle.settle_batch([Message(1, done)])


async def read(here: Alone, act: Callable[[bytes], Awaitable[object]]) -> object:
    """Something about a task that was settled, and of which replicas know nothing."""
    made = await here.world.ask("r", 1, result_subject=INBOX)
    done = result(assignment_id=to_text(assignment_id(task_id(made.decision_id), 1)))
    before, here.world.tasks = here.world.tasks, RedisTasks(here.keys, here.nodes)
    with pytest.MonkeyPatch.context() as patch:  # its pod dies before it has told anybody
        patch.setattr("router.usecases.tasks.settle.ResultSettler._apply", lambda *_: [])
        await here.world.hands(Fate()).settle.settle_batch([Message(1, done)])
    here.world.tasks = before
    return await act(made.decision_id)


TOLD: dict[str, Callable[[Alone], Awaitable[object]]] = {
    "result": settled,
    "policy applied": lambda here: here.policies.apply(
        TENANT, policy_id="p", document=DOCUMENT, expect_revision=0, by=BY
    ),
    "policy deleted": lambda here: here.policies.delete(TENANT, policy_id="p", expect_revision=None, by=BY),
    "drained": lambda here: here.levers.drain(TENANT, provider="a", on=True, by=BY),
    "forced open": lambda here: here.levers.force_open(TENANT, provider="a", by=BY),
    "breaker reset": lambda here: here.levers.reset_breaker(TENANT, provider="a", by=BY),
    "tenant off": lambda here: here.levers.switch(TENANT, on=False, by=BY),
    "forgotten": lambda here: here.levers.forget(TENANT, b"n" * 10, called=("request_id", "r"), by=BY),
    "purge ends": lambda here: here.tenants.end(TENANT, keep_ms=1_000),
    "purged": lambda here: here.tenants.purge(TENANT, dry_run=False),
    "extensions done": lambda here: here.claims.complete(TENANT, b"d" * 16, claim=b"c" * 16, metadata={}),
    "get_decision": lambda here: read(here, lambda d: here.decisions.remembered(TENANT, name_in(d))),
    "final result left over": lambda here: read(here, lambda d: here.tasks.final_results([task_id(d)])),
    "usage left over": lambda here: read(here, lambda _: here.tasks.usage_waiting(10)),
}
NOT_TOLD: dict[str, Callable[[Alone], Awaitable[object]]] = {
    "policies read": lambda here: here.policies.load(TENANT),
    "claimed": lambda here: here.tasks.claim(1_000, maximum=10),
    "note": lambda here: here.tasks.move([], replicated=False),
    "purge counted": lambda here: here.tenants.purge(TENANT, dry_run=True),
    "use of a role": lambda here: here.levers.role_used(BY, "get_extension_health", None, "done"),
    "nothing stored": lambda here: here.decisions.remembered(TENANT, b"n" * 10),
    "no final result": lambda here: here.tasks.final_results([b"t" * 16]),
    "no usage": lambda here: here.tasks.usage_waiting(10),
}


@pytest.mark.parametrize("what", TOLD)
async def test_what_no_replica_has_is_told_to_nobody(alone: Alone, what: str) -> None:
    """It is an error instead, which says what to do or is redelivered."""
    with pytest.raises((NotReplicated, StoreUnavailable), match="replicas"):
        await TOLD[what](alone)
    assert (alone.world.told, alone.world.usage) == ([], [])


@pytest.mark.parametrize("what", NOT_TOLD)
async def test_what_is_told_to_nobody_waits_for_nobody(alone: Alone, what: str) -> None:
    """Reads for the pod itself, notes, and look-ups that find nothing."""
    await NOT_TOLD[what](alone)


async def test_while_replicas_are_away_nothing_more_is_executed(alone: Alone) -> None:
    """A redelivery every second would write a note into the audit log every second."""
    with pytest.raises(NotReplicated, match=r"apply_policy was executed, but not confirmed by 1 replicas in time"):
        await alone.policies.apply(TENANT, policy_id="p", document=DOCUMENT, expect_revision=0, by=BY)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="ROUTER_WAIT_REPLICAS"):
            await alone.policies.apply(TENANT, policy_id="p", document=DOCUMENT, expect_revision=1, by=BY)
        await asyncio.sleep(2 * SHORT_MS / 1000)  # until replicas are asked again
    stored = await alone.policies.load(TENANT)
    assert stored is not None
    assert stored.revision == 1
    reported: list[str] = []
    replicas = Replicas(alone.nodes, 1, wait_ms=SHORT_MS, on_unconfirmed=reported.append)
    with pytest.raises(NotReplicated):
        await RedisPolicies(alone.nodes, alone.keys, replicas=replicas).delete(
            TENANT, policy_id="p", expect_revision=1, by=BY
        )
    await asyncio.sleep(2 * SHORT_MS / 1000)
    with pytest.raises(StoreUnavailable):
        await replicas.confirm([alone.keys.acts])
    assert reported == ["delete_policy", "confirm"]
    await replicas.close()


async def test_without_the_setting_nothing_is_added(redis_url: str) -> None:
    """No command, no connection: calls go where they always went."""

    class Counted(SingleNode):
        calls = 0

        async def run(self, *args: Any) -> Any:
            self.calls += 1
            return await super().run(*args)

        def connections(self, address: Any) -> Any:
            raise AssertionError("a connection of its own")

    nodes = Counted(redis_url)
    keys = fresh_keys()
    replicas = Replicas(nodes)
    await RedisPolicies(nodes, keys, replicas=replicas).apply(
        TENANT, policy_id="p", document=DOCUMENT, expect_revision=0
    )
    await replicas.confirm([keys.acts])
    assert nodes.calls == 1
    assert await nodes.call("EXISTS", marker_beside(keys.tenant(TENANT).head)) == 0
    await replicas.close()
    await nodes.close()


@pytest.mark.parametrize(
    ("key", "marker"),
    [
        (b"r1:{ab}:acme:head", b"r1:{ab}:~:wait"),
        (b"r1{ab}\x00{}:name", b"r1:{ab}:~:wait"),
        (b"r9:{abc}:~:task:{x}", b"r9:{abc}:~:wait"),
        (Keys("r2").tenant("a{b}c").audit, Keys("r2").tenant("a{b}c").wait),
    ],
)
def test_the_marker_is_in_the_partition_of_its_key(key: bytes, marker: bytes) -> None:
    """A Cluster would refuse another slot on this connection."""
    assert marker_beside(key) == marker


# A primary, its replica, and the end of the primary


def in_sync(primary: ValkeyProcess) -> bool:
    """Whether the replica follows and has everything."""
    with Redis(port=primary.port, protocol=2) as client:
        client.set("nudge", b"")
        return bool(client.wait(1, 1_000))


def cut_off(primary: ValkeyProcess, replica: ValkeyProcess) -> None:
    """The replica misses what comes next."""
    replica.freeze()
    with Redis(port=primary.port, protocol=2) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a server."""
    async with asyncio.timeout(BUSY_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - a server's state
            await asyncio.sleep(0.01)


ROOMY = policy("a")


def pushed(number: int) -> Ask:
    """A task whose caller wants its end."""
    return Ask(request(TENANT, f"r{number}", push=True, options=Options(result_subject=INBOX)), ROOMY, b"work")


async def handled(world: World, message: Message) -> None:
    """As a pull loop: what the store did not settle is delivered again."""
    try:
        await world.hands(Fate()).settle.settle_batch([message])
    except StoreError:
        message.nak(1.0)


@pytest.mark.parametrize("wait_replicas", [1, 0])
async def test_a_failover_forgets_no_result_that_was_acknowledged(
    servers: None, tmp_path: Path, wait_replicas: int
) -> None:
    """Results before and after the replica was cut off; then the primary dies and the replica takes over.

    JetStream forgets what was acknowledged, so that must be settled in the new primary; the rest comes again. Without
    the setting the results of the lag are forgotten, which shows that this run can show it.
    """
    keys = Keys(schema=f"t{token_hex(5)}")
    fast = ("--repl-diskless-sync-delay", "0")
    with ValkeyProcess(tmp_path / "primary", args=fast) as primary:
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        with ValkeyProcess(tmp_path / "replica", args=(*fast, *follow)) as replica:
            await until(lambda: in_sync(primary))
            nodes = SingleNode(primary.url)
            replicas = Replicas(nodes, wait_replicas, wait_ms=200)
            async with Pod(nodes, keys) as pod:
                world = World(pod, ROOMY, replicas=replicas)
                made = [m for m in await pod.decide(*map(pushed, range(4))) if isinstance(m, Admitted)]
                tasks = [task_id(m.decision_id) for m in made]
                messages = [
                    Message(i, result(assignment_id=to_text(assignment_id(task, 1)))) for i, task in enumerate(tasks)
                ]
                async with asyncio.timeout(BUSY_S):
                    while "ack" not in messages[0].said:  # a slow machine may need another delivery
                        await handled(world, messages[0])
                await until(lambda: in_sync(primary))
                await asyncio.to_thread(cut_off, primary, replica)
                for message in messages[1:]:
                    await handled(world, message)
                told = {t["task_id"] for t in world.told}
            await replicas.close()
            await nodes.close()
            await asyncio.to_thread(primary.kill)
            replica.thaw()
            with Redis(port=replica.port, protocol=2) as client:
                client.replicaof("NO", "ONE")
            nodes = SingleNode(replica.url)
            async with Pod(nodes, keys) as pod:
                records = await RedisTasks(keys, nodes).records(tasks)
                known = {t for t, r in zip(tasks, records, strict=True) if isinstance(r, TaskRecord)}
                assert known == set(tasks)
                ended = {r.decision_id for r in records if isinstance(r, TaskRecord) and r.state is TaskState.SUCCEEDED}
                acknowledged = {m.decision_id for m, x in zip(made, messages, strict=True) if "ack" in x.said}
                forgotten = acknowledged - ended
                if not wait_replicas:
                    assert len(forgotten) == 3, "the replica did not lag: this run shows nothing"
                else:
                    assert forgotten == set()
                    assert told == {to_text(task_id(m)) for m in acknowledged}
                    world = World(pod, ROOMY)
                    for message in messages[1:]:
                        message.said.clear()
                        await handled(world, message)
                        assert message.said == ["ack"]
                    again = await RedisTasks(keys, nodes).records(tasks)
                    assert {r.state for r in again if isinstance(r, TaskRecord)} == {TaskState.SUCCEEDED}
            await nodes.close()


async def test_replicas_that_follow_again_are_enough(servers: None, tmp_path: Path) -> None:
    """A redelivered result is settled already, and acknowledged once the replica has that."""
    with ValkeyProcess(tmp_path / "primary", args=("--repl-diskless-sync-delay", "0")) as primary:
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        with ValkeyProcess(tmp_path / "replica", args=follow) as replica:
            await until(lambda: in_sync(primary))
            nodes = SingleNode(primary.url)
            replicas = Replicas(nodes, 1, wait_ms=200)
            async with Pod(nodes, fresh_keys()) as pod:
                world = World(pod, replicas=replicas)
                made = await world.ask("r", 1)
                message = Message(1, result(tenant_id=TENANT, decision_id=to_text(made.decision_id)))
                replica.freeze()
                await handled(world, message)
                assert message.said == ["nak 1"]
                replica.thaw()
                async with asyncio.timeout(BUSY_S):
                    while message.said[-1] != "ack":
                        await handled(world, message)
                assert (await world.actions()).count("result.settled") == 1
            await replicas.close()
            await nodes.close()
