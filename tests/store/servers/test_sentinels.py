"""Redis Sentinel: pods follow the primary that the sentinels name, on both roads, and lose nothing that WAIT covers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis

from router.domain.access import Party
from router.domain.decide.outcome import Admitted, LimitHit, Replay, Unavailable
from router.domain.ids import assignment_id, task_id, to_text
from router.domain.policy.model import Limit
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.task import TaskRecord, TaskState
from router.errors import StoreError, StoreUnavailable
from router.store.decide.calls import LaneSettings
from router.store.servers.options import Access, Sentinel
from router.store.servers.replicas import Replicas
from router.store.servers.rights import sentinel_rules
from router.store.servers.sentinels import SentinelPrimary, Sentinels, View
from router.store.tasks.store import RedisTasks
from tests.certificates import Authority, Certificate
from tests.sentinels import MASTER, SentinelSet
from tests.servers import PASSWORD, ValkeyProcess, to_its_end
from tests.store.harness import Ask, policy, request
from tests.store.pods import PLAIN, Pod, ask, fresh_keys
from tests.tls_proxy import tls_in_front
from tests.usecases.fakes.bus import Message
from tests.usecases.fakes.settling import Fate, World, result

IGNORED = "redis://nobody.invalid:1/0"
"""With sentinels the URL's host and port are not used."""
BUSY_S = 60.0
"""How long anything may take on a busy machine."""


@pytest.fixture
async def servers_of_sentinels(servers: None, tmp_path: Path) -> AsyncIterator[SentinelSet]:
    """Two replicas of equal priority, three sentinels."""
    found = SentinelSet(tmp_path)
    await to_its_end(found.__enter__)
    yield found
    await to_its_end(found.__exit__)


def sentinel(servers: SentinelSet, **more: object) -> Sentinel:
    """How to reach them."""
    return Sentinel(addresses=servers.addresses, master=MASTER, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def following(servers: SentinelSet, settings: LaneSettings | None = None) -> AsyncIterator[Pod]:
    """A pod that asks the sentinels every second, as pods do."""
    nodes = SentinelPrimary(IGNORED, Access(), sentinel(servers))
    await nodes.open()

    async def every_second() -> None:
        while True:
            await asyncio.sleep(1.0)
            pod.lanes.tick()

    async with Pod(nodes, fresh_keys(), settings=settings) as pod:
        ticking = asyncio.create_task(every_second())
        try:
            yield pod
        finally:
            ticking.cancel()
    await nodes.close()


async def until(condition: Callable[[], bool], why: str) -> None:
    """Wait for what has no event."""
    async with asyncio.timeout(BUSY_S):
        while not condition():  # noqa: ASYNC110 - a server's or a sentinel's state
            await asyncio.sleep(0.01)
    assert condition(), why


async def switched(servers: SentinelSet, before: int) -> float:
    """When the first sentinel names another primary."""
    async with asyncio.timeout(BUSY_S):
        while await asyncio.to_thread(lambda: [servers.named(n) for n in range(3)].count(before)) == 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.monotonic()


async def admitted(pod: Pod) -> float:
    """When a decision is admitted again."""
    async with asyncio.timeout(BUSY_S):
        while not isinstance((await pod.decide(ask()))[0], Admitted):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.monotonic()


@pytest.mark.parametrize("fault", ["killed", "frozen", "asked to"])
async def test_a_failover_is_over_soon_after_the_sentinels_switch(
    fault: str, servers_of_sentinels: SentinelSet
) -> None:
    """In under 3 s, on both roads: the primary is gone, or hangs, or an operator asked for it."""
    servers = servers_of_sentinels
    async with following(servers) as pod:
        before = await asyncio.to_thread(servers.named)
        await admitted(pod)
        old = servers.server(before)
        match fault:
            case "killed":
                await asyncio.to_thread(old.kill)
            case "frozen":
                old.freeze()
            case _:
                await asyncio.to_thread(servers.sentinels[0].ask, "SENTINEL", "FAILOVER", MASTER)
        at = await switched(servers, before)
        took = await admitted(pod) - at
        assert took < 3, f"{took:.2f} s"
        await until(lambda: pod.nodes.address_of(b"") != ("127.0.0.1", before), "the pod stays at the old primary")
        assert await pod.nodes.call("SET", pod.keys.meta, b"x") is True
        (info,) = await pod.nodes.each("INFO", "server")
        assert info["tcp_port"] != before
        if fault == "frozen":
            old.thaw()  # it wakes up as a primary, until the sentinels see it
            for _ in range(20):
                await pod.decide(ask())
            assert pod.nodes.address_of(b"") != ("127.0.0.1", before)


async def test_sentinels_that_are_lost_change_nothing(servers_of_sentinels: SentinelSet) -> None:
    """One of three is enough to start; without any, pods stay where they are and say so at a start."""
    servers = servers_of_sentinels
    for process in servers.sentinels[1:]:
        await asyncio.to_thread(process.kill)
    async with following(servers) as pod:
        await admitted(pod)
        await asyncio.to_thread(servers.sentinels[0].kill)
        for _ in range(3):
            pod.lanes.tick()
            assert isinstance((await pod.decide(ask()))[0], Admitted)
        with pytest.raises(StoreUnavailable, match=f"no sentinel names the primary {MASTER}: sentinel 127.0.0.1:"):
            await pod.nodes.refresh()
    nodes = SentinelPrimary(IGNORED, Access(), sentinel(servers))
    with pytest.raises(StoreUnavailable):
        await nodes.open()
    for call in (nodes.call("PING"), nodes.gather([("GET", "x")])):
        with pytest.raises(StoreUnavailable, match="not named the primary yet"):
            await call
    await nodes.close()


async def test_a_frozen_sentinel_delays_nobody(servers_of_sentinels: SentinelSet) -> None:
    """Most have answered: that is enough."""
    servers = servers_of_sentinels
    asked = Sentinels(sentinel(servers), timeout_s=30)
    servers.sentinels[2].freeze()
    async with asyncio.timeout(10):
        assert (await asked.primary())[1] == await asyncio.to_thread(servers.named)
    servers.sentinels[2].thaw()
    await asked.close()


async def test_the_newest_configuration_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentinel that was away names the old primary; those that held the vote have a higher epoch."""
    addresses = tuple(("s", port) for port in range(1, 4))
    views = {1: ("old", 3), 2: ("new", 4), 3: ("old", 3)}

    async def view(_: Sentinels, address: tuple[str, int]) -> View:
        name, epoch = views[address[1]]
        return View(address=(name, 1), epoch=epoch, flags=frozenset({"master"}), replicas=2, sentinels=3, quorum=2)

    monkeypatch.setattr(Sentinels, "view", view)
    asked = Sentinels(Sentinel(addresses=addresses, master=MASTER))
    assert await asked.primary() == ("new", 1)
    await asked.close()


async def test_a_replica_is_not_taken_for_the_primary(servers_of_sentinels: SentinelSet) -> None:
    """Sentinels that know nothing of a failover name a server that is a replica now."""
    servers = servers_of_sentinels
    first = await asyncio.to_thread(servers.named)
    replica = next(server for server in servers.servers if server.port != first)
    nodes = SentinelPrimary(IGNORED, Access(), sentinel(servers))

    async def stale() -> tuple[str, int]:
        return "127.0.0.1", replica.port

    nodes.sentinels.primary = stale  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match=f"{replica.port}, which the sentinels name, is a replica"):
        await nodes.open()
    await nodes.close()


async def test_wrong_names_and_logins(servers_of_sentinels: SentinelSet) -> None:
    """Each is named with its remedy; the printed rights are enough."""
    servers = servers_of_sentinels
    for process in servers.sentinels:
        await asyncio.to_thread(process.ask, *f"ACL SETUSER router-pod on >sesame {sentinel_rules()}".split())
        await asyncio.to_thread(process.ask, "ACL", "SETUSER", "nobody", "on", ">sesame", "-@all")
    good = Sentinels(sentinel(servers, access=Access("router-pod", "sesame")))
    assert (await good.primary())[1] == await asyncio.to_thread(servers.named)
    await good.close()
    wrong = {
        "ROUTER_REDIS_SENTINEL_MASTER": Sentinel(addresses=servers.addresses, master="other"),
        "invalid username-password pair": sentinel(servers, access=Access("router-pod", "wrong-one")),
        "no permissions": sentinel(servers, access=Access("nobody", "sesame")),
    }
    for said, options in wrong.items():
        asked = Sentinels(options)
        with pytest.raises(StoreError, match=said) as refused:
            await asked.primary()
        assert "wrong-one" not in str(refused.value)
        await asked.close()


async def test_logins_and_databases_of_redis_stay(servers_of_sentinels: SentinelSet) -> None:
    """Of the URL only host and port go; a wrong password is refused by the primary, not by the sentinels."""
    servers = servers_of_sentinels
    nodes = SentinelPrimary(f"redis://{Party.POD}@nobody.invalid/0", Access(), sentinel(servers))
    with pytest.raises(StoreError):
        await nodes.open()
    await nodes.close()
    nodes = SentinelPrimary(IGNORED.replace("/0", "/3"), Access(f"router-{Party.POD}", PASSWORD), sentinel(servers))
    with pytest.raises(StoreError, match="select"):
        await nodes.open()  # its rights are those of database 0
    await nodes.close()
    nodes = SentinelPrimary(IGNORED, Access(f"router-{Party.POD}", PASSWORD), sentinel(servers))
    await nodes.open()
    await nodes.close()


async def test_sentinels_over_mutual_tls(servers_of_sentinels: SentinelSet, tmp_path: Path) -> None:
    """With a certificate of the authority that they trust, and with no other."""
    servers = servers_of_sentinels
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    pod, stranger = authority.issue("pod"), other.issue("pod")
    context = authority.issue("sentinel").context(authority.ca)
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(tls_in_front(port, context)) for _, port in servers.addresses]
        addresses = tuple(("127.0.0.1", port) for port in ports)
        for mine, trusted in ((pod, True), (stranger, False)):
            access = Access(tls_ca=str(authority.ca), tls_cert=str(mine.cert), tls_key=str(mine.key))
            asked = Sentinels(Sentinel(addresses, MASTER, access=access, tls=True), timeout_s=10)
            if trusted:
                assert (await asked.primary())[1] == await asyncio.to_thread(servers.named)
            else:
                with pytest.raises(StoreUnavailable):
                    await asked.primary()
            await asked.close()


async def test_mutual_tls_to_the_sentinels_and_to_the_primary(
    servers_of_sentinels: SentinelSet, tmp_path: Path
) -> None:
    """Both with certificates, before and after a failover; a stranger's is refused by either."""
    servers = servers_of_sentinels
    authority, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    pod, stranger = authority.issue("pod"), other.issue("pod")
    context = authority.issue("server").context(authority.ca)
    async with AsyncExitStack() as stack:
        doors = {s.port: await stack.enter_async_context(tls_in_front(s.port, context)) for s in servers.servers}

        def bulk(port: int) -> bytes:
            return b"$%d\r\n%d\r\n" % (len(str(port)), port)

        def named(reply: bytes) -> bytes:
            """The sentinels name the doors, as those would that watch servers over TLS."""
            for plain, door in doors.items():
                reply = reply.replace(bulk(plain), bulk(door))
            return reply

        ports = [await stack.enter_async_context(tls_in_front(port, context, named)) for _, port in servers.addresses]
        addresses = tuple(("127.0.0.1", port) for port in ports)

        def following_as(primary: Certificate, sentinels: Certificate) -> SentinelPrimary:
            to_primary, to_sentinels = (
                Access(tls_ca=str(authority.ca), tls_cert=str(mine.cert), tls_key=str(mine.key))
                for mine in (primary, sentinels)
            )
            watched = Sentinel(addresses, MASTER, access=to_sentinels, tls=True)
            return SentinelPrimary(IGNORED.replace("redis:", "rediss:"), to_primary, watched, timeout_s=10)

        for mine in ((stranger, pod), (pod, stranger)):
            nodes = following_as(*mine)
            with pytest.raises(StoreError):
                await nodes.open()
            await nodes.close()
        nodes = following_as(pod, pod)
        await nodes.open()
        async with Pod(nodes, fresh_keys(), settings=LaneSettings(deadline_ms=10_000)) as opened:
            before = nodes.address_of(b"")
            assert before is not None
            assert before[1] in doors.values()
            await admitted(opened)
            await asyncio.to_thread(servers.sentinels[0].ask, "SENTINEL", "FAILOVER", MASTER)
            async with asyncio.timeout(BUSY_S):
                while nodes.address_of(b"") == before:
                    opened.lanes.tick()
                    await asyncio.sleep(0.1)
            await admitted(opened)
            assert await nodes.call("SET", opened.keys.meta, b"x") is True
        await nodes.close()


async def test_a_repeated_answer_waits_for_the_replicas_too(servers_of_sentinels: SentinelSet) -> None:
    """A replay writes nothing itself: without care another pod would confirm what only the primary has."""
    servers = servers_of_sentinels
    first = await asyncio.to_thread(servers.named)
    replicas = [server for server in servers.servers if server.port != first]
    careful = LaneSettings(deadline_ms=1000, wait_replicas=1, missed_until_down=100)
    async with following(servers, careful) as one, following(servers, careful) as other:
        other.decisions._keys = one.decisions._keys
        await admitted(one)
        for replica in replicas:
            replica.freeze()
        request = ask()
        assert await one.decide(request) == [Unavailable(sent=True)]
        assert await other.decide(request) == [Unavailable(sent=True)]
        for replica in replicas:
            replica.thaw()
        async with asyncio.timeout(BUSY_S):
            while not isinstance((await other.decide(request))[0], Replay):
                pass


LIMIT = 1000


class Load:
    """Asks until the tenant's limit is used up; keeps every request that was accepted."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.accepted: dict[bytes, Ask] = {}
        self.unavailable = 0
        limit = Limit(
            "all", scope=Scope.TENANT, resource=Resource.REQUESTS, limit=LIMIT, window_ms=86_400_000, entry=b"\x01" * 8
        )
        self._policy = policy("a", "b", limits=[limit])

    async def run(self) -> None:
        """Twenty at a time, with pauses that keep the limit from being used up before the fault."""
        while True:
            asks = [Ask(request("acme", uuid4().hex), self._policy) for _ in range(20)]
            for asked, outcome in zip(asks, await self.pod.decide(*asks), strict=True):
                match outcome:
                    case Admitted():
                        self.accepted[outcome.decision_id] = asked
                    case LimitHit():
                        return
                    case _:
                        self.unavailable += 1
            await asyncio.sleep(0.005)

    async def more(self, count: int) -> None:
        """Wait until that many more are accepted."""
        enough = len(self.accepted) + count
        await until(lambda: len(self.accepted) >= enough, "no load")

    async def forgotten(self) -> int:
        """How many accepted requests get another answer when they are repeated."""
        lost = 0
        for decision_id, asked in self.accepted.items():
            async with asyncio.timeout(BUSY_S):
                while isinstance(outcome := (await self.pod.decide(asked))[0], Unavailable):
                    pass
            lost += not (isinstance(outcome, Replay) and outcome.remembered.decision_id == decision_id)
        return lost


def cut_off(primary: ValkeyProcess, replicas: Sequence[ValkeyProcess]) -> None:
    """Let these replicas miss what comes next: they are frozen, and their connections end."""
    with Redis(port=primary.port, protocol=2) as client:
        for replica in replicas:
            replica.freeze()
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


@pytest.mark.long
@pytest.mark.parametrize("wait_replicas", [1, 0])
async def test_a_failover_under_load(
    wait_replicas: int, servers_of_sentinels: SentinelSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """One replica lags when the primary is killed. With ROUTER_WAIT_REPLICAS=1 no accepted request is forgotten.

    Without it both lag, the requests of the lag are forgotten, and the limit is exceeded by as many: the numbers are
    printed.
    """
    servers = servers_of_sentinels
    first = await asyncio.to_thread(servers.named)
    primary = servers.server(first)
    replicas = [server for server in servers.servers if server.port != first]
    lagging = replicas[:1] if wait_replicas else replicas
    settings = LaneSettings(deadline_ms=1000, wait_replicas=wait_replicas, retry_ms=50)
    async with following(servers, settings) as pod:
        await admitted(pod)
        load = Load(pod)
        running = asyncio.create_task(load.run())
        await load.more(200)
        await asyncio.to_thread(cut_off, primary, lagging)
        await load.more(200)
        await asyncio.to_thread(primary.kill)
        killed = time.monotonic()
        for replica in lagging:
            replica.thaw()
        at = await switched(servers, first)
        again = await admitted(pod)
        async with asyncio.timeout(BUSY_S):
            await running
        forgotten, exceeded = await load.forgotten(), max(0, len(load.accepted) - LIMIT)
    with capsys.disabled():
        print(
            f"\nROUTER_WAIT_REPLICAS={wait_replicas}: {len(load.accepted)} accepted, {load.unavailable} unavailable, "
            f"{forgotten} forgotten, limit of {LIMIT} exceeded by {exceeded}; the sentinels switched "
            f"{at - killed:.1f} s after the kill, the pod followed within {again - at:.1f} s"
        )
    assert again - at < 3
    if wait_replicas:
        assert (forgotten, exceeded) == (0, 0)
    else:
        assert forgotten > 0, "the replicas did not lag: this run shows nothing"


@pytest.mark.long
async def test_results_through_a_failover(servers_of_sentinels: SentinelSet) -> None:
    """Results come while one replica lags and the primary dies, with ROUTER_WAIT_REPLICAS=1: each is delivered until it
    is acknowledged, and what was acknowledged is settled in the new primary."""
    servers = servers_of_sentinels
    first = await asyncio.to_thread(servers.named)
    primary = servers.server(first)
    replicas = [server for server in servers.servers if server.port != first]
    settings = LaneSettings(deadline_ms=1000, wait_replicas=1, retry_ms=50)
    async with following(servers, settings) as pod:
        waits = Replicas(pod.nodes, 1)
        world = World(pod, PLAIN, replicas=waits)
        settled: list[bytes] = []

        async def one() -> None:
            async with asyncio.timeout(BUSY_S):
                while not isinstance(  # noqa: ASYNC110 - a server's state
                    made := (await pod.decide(Ask(request("acme", uuid4().hex, push=True), PLAIN, b"work")))[0],
                    Admitted,
                ):
                    await asyncio.sleep(0.05)
                task = task_id(made.decision_id)
                message = Message(len(settled), result(assignment_id=to_text(assignment_id(task, 1))))
                while "ack" not in message.said:
                    try:
                        await world.hands(Fate()).settle.settle_batch([message])
                    except StoreError:
                        await asyncio.sleep(0.05)  # delivered again
                settled.append(task)

        async def load() -> None:
            while True:
                await asyncio.gather(*(one() for _ in range(5)))

        running = asyncio.create_task(load())
        await until(lambda: len(settled) >= 50, "no load")
        await asyncio.to_thread(cut_off, primary, replicas[:1])
        await until(lambda: len(settled) >= 100, "no load beside a replica that lags")
        await asyncio.to_thread(primary.kill)
        replicas[0].thaw()
        at_the_kill = len(settled)
        await switched(servers, first)
        await until(lambda: len(settled) >= at_the_kill + 50, "no load after the failover")
        running.cancel()
        done = list(settled)
        records = await RedisTasks(pod.keys, pod.nodes).records(done)
        await waits.close()
    assert {r.state for r in records if isinstance(r, TaskRecord)} == {TaskState.SUCCEEDED}
    assert None not in records


async def test_other_credentials_are_taken_without_a_pause(servers_of_sentinels: SentinelSet) -> None:
    """Of the primary and of the sentinels; what is refused leaves the old connections in use."""
    async with following(servers_of_sentinels, LaneSettings(deadline_ms=10_000)) as pod:
        nodes = pod.nodes
        assert isinstance(nodes, SentinelPrimary)
        wrong = Access(username="nobody", password="wrong")  # noqa: S106 - a test's own
        with pytest.raises(StoreError):
            await nodes.renew(wrong)
        with pytest.raises(StoreError):
            await nodes.renew_sentinels(sentinel(servers_of_sentinels, access=wrong))
        assert isinstance((await pod.decide(ask()))[0], Admitted)
        await nodes.renew(Access())
        await nodes.renew_sentinels(sentinel(servers_of_sentinels))
        await pod.lanes.renew()
        await nodes.refresh()
        assert isinstance((await pod.decide(ask()))[0], Admitted)
