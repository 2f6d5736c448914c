"""A store at its memory bound: decisions are refused whole, and everything that ends work and frees memory goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

import pytest
from msgspec import msgpack
from redis import Redis
from redis.exceptions import ResponseError

from router.domain.decide.outcome import Admitted
from router.domain.policy.limits import limit
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.tasks.task import BreakerTurn, Moved, TaskState
from router.store.audit.retention import RedisRetention, RetentionBounds
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from tests.servers import ValkeyProcess
from tests.store.claimed import Begun
from tests.store.harness import Store, policy, request
from tests.store.tasks import TRIP, Task, correction


@pytest.fixture(scope="module")
def own(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    """A server of this module: its bound is changed."""
    with ValkeyProcess(tmp_path_factory.mktemp("full")) as server:
        yield server


class Bounded(Store):
    """A store whose clock is set however full the server is."""

    bound = 0

    def set_clock(self, key: bytes) -> None:
        self.client.config_set("maxmemory", 0)
        super().set_clock(key)
        self.client.config_set("maxmemory", self.bound)

    @contextmanager
    def full(self) -> Iterator[None]:
        """The server holds more than it may."""
        self.bound = 1
        self.client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self.bound = 0
            self.client.config_set("maxmemory", 0)


@pytest.fixture
def store(own: ValkeyProcess) -> Iterator[Bounded]:
    """A fresh schema on it."""
    with Redis.from_url(own.url) as client:
        yield Bounded(client)


def test_a_decision_is_refused_whole(store: Bounded) -> None:
    """Nothing of it is written, and the same request is decided when there is room."""
    tenant = store.tenant()
    with store.full():
        with pytest.raises(ResponseError, match="maxmemory"):
            store.one(request(tenant, "r"), policy("a"))
        assert store.actions(tenant) == []
    assert isinstance(store.one(request(tenant, "r"), policy("a")), Admitted)


def test_a_result_is_settled(store: Bounded) -> None:
    """With all that belongs to it: breaker, lease, usage and log; its caller need not wait for room."""
    slots = limit("c", Scope.TENANT, Resource.CONCURRENCY, 1, 0)
    task = Task(store, policy("a", limits=[slots], breaker=TRIP))
    with store.full():
        move = task.ended(TaskState.FAILED, leases=(correction(-1, slots),))
        assert store.settle(move) == [Moved(BreakerTurn.OPENED)]
        assert store.client.zcard(store.of(task.tenant).lease(slots.entry + b":")) == 0
        assert task.outbox()[task.id] == b"usage"
        assert store.actions(task.tenant)[-2:] == ["result.settled", "breaker.opened"]


def test_what_is_due_is_claimed(store: Bounded) -> None:
    """The sweeper goes on: deadlines end tasks, and ended tasks free memory."""
    task = Task(store, policy("a"))
    store.now += 60_000
    with store.full():
        assert store.claim(store.of(task.tenant).partition, 5_000, 10) == [task.id]


def test_a_begun_decision_is_finished(store: Bounded) -> None:
    """With what its post extensions added."""
    begun = Begun(store)
    with store.full():
        assert begun.complete(msgpack.encode({"region": "eu"})) == 0
        kept = begun.kept()
    assert kept is not None
    assert (kept.unfinished, kept.metadata) == (False, {"region": "eu"})


def test_a_begun_decision_is_taken_back(store: Bounded) -> None:
    """Forgetting frees memory."""
    begun = Begun(store)
    with store.full():
        assert begun.abandon() == 0
        assert begun.kept() is None


async def test_old_audit_entries_are_cut(own: ValkeyProcess) -> None:
    """Cutting is what makes room."""
    nodes, keys = SingleNode(own.url), Keys(f"t{token_hex(5)}")
    await nodes.open()
    retention = RedisRetention(keys, nodes, RetentionBounds())
    await nodes.call("XADD", keys.tenant("t").audit, "1-0", "r", b"old")
    await retention.register(["t"])
    await nodes.call("CONFIG", "SET", "maxmemory", 1)
    try:
        assert await retention.claim(30_000, maximum=10) == ["t"]
        trimmed = await retention.trim("t", check_ms=60_000, full_ms=30_000, keep_unread=False)
    finally:
        await nodes.call("CONFIG", "SET", "maxmemory", 0)
        await nodes.close()
    assert trimmed is not None
    assert (trimmed.cut, trimmed.entries) == (1, 0)
