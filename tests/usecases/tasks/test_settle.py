"""Results on a real store: pods that die at any step of settling one, and many at once.

A pod's death is an exception that nothing catches, before or after the act at which it dies took place. The stream
hands the result to the next pod.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from secrets import token_hex
from typing import Any, NamedTuple

import orjson
import pytest
from prometheus_client import CollectorRegistry

from router.domain.ids import assignment_id, from_text, name_in, partition_in, task_id, task_of, to_text
from router.domain.json import JsonObject
from router.domain.outcome import Admitted, LimitHit
from router.domain.policy.limits import limit
from router.domain.policy.model import Resource, Scope, TenantPolicies, provider
from router.domain.request import Options
from router.domain.task import TaskRecord, TaskState
from router.errors import StoreUnavailable
from router.ports.bus import Publication, Published
from router.store.audit import RedisAudit
from router.store.delivery_failures import RedisDeliveryFailures
from router.store.keys import Keys
from router.store.nodes import SingleNode
from router.store.tasks import RedisTasks
from router.telemetry import Telemetry
from router.usecases.messages.deliveries import DeadLetters
from router.usecases.messages.isolation import Isolation
from router.usecases.tasks.acks import Acks
from router.usecases.tasks.final_results import FinalResults
from router.usecases.tasks.outbox import Outbox
from router.usecases.tasks.settle import Settle
from router.usecases.tasks.sweep import Sweeper
from router.usecases.tasks.task_effects import TaskEffects
from tests.store.harness import MINUTE, Ask, policy, request
from tests.store.pods import Pod
from tests.usecases.fakes.extensions import Silent
from tests.usecases.messages.test_deliveries import Message
from tests.usecases.tasks.test_outbox import DEDUP_MS, NOW_MS, UsageStream

TENANT = "acme"
TOKENS = limit("tokens", Scope.TENANT, Resource.TOKENS, 100, 60 * MINUTE)
STORED = policy(provider("only", weight=100, max_concurrency=1), limits=[TOKENS])
RESERVED, USED = 60, 25
MAX_STEPS = 12
INBOX = "_INBOX.x"


class Died(BaseException):
    """The end of a pod: no handler catches it."""


class Fate:
    """Dies at the `at`-th act (None: never), `after` or before it took place."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at, self.after = at, after
        self.acts = 0
        self.dead = False

    def at_work(self, act: Callable[[], Any]) -> Any:
        """One act."""
        now = self.at == self.acts
        self.acts += 1
        if now and not self.after:
            self.die()
        found = act()
        if now:
            self.die()
        return found

    def die(self) -> None:
        """From now on nothing of this pod gets anywhere."""
        self.dead = True
        raise Died


class Mortal:
    """What a pod reaches, with every call an act."""

    def __init__(self, inner: Any, fate: Fate) -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._inner, name)
        if name == "now_ms":  # no act
            return target

        async def act(*args: Any) -> Any:
            if self._fate.dead:
                raise StoreUnavailable("its pod is dead")
            if name in {"usage_published", "told"}:  # of a task of its own
                return await target(*args)
            # Before or after the call itself, not its beginning.
            if self._fate.at == self._fate.acts and not self._fate.after:
                self._fate.die()
            found = await target(*args)
            return self._fate.at_work(lambda: found)

        return act


class Line:
    """`ports.bus.Line`, never lost."""

    connection = 1

    async def flush(self) -> None:
        """At once."""


class Hands(NamedTuple):
    """What one pod has at work."""

    settle: Settle
    acks: Acks
    sweeper: Sweeper
    outbox: Outbox
    effects: TaskEffects
    final_results: FinalResults


class World:
    """One store, one stream of usage, one caller; pods come and go."""

    def __init__(self, pod: Pod) -> None:
        self.pod, self.tasks = pod, RedisTasks(pod.keys, pod.nodes)
        self.telemetry = Telemetry(CollectorRegistry())
        self.usage: list[str] = []
        self.letters: list[JsonObject] = []
        self.told: list[JsonObject] = []

    def get(self, tenant_id: str) -> TenantPolicies:
        """`ports.policies.PolicyLookup`."""
        return TenantPolicies(tenant_id, 1, bytes(8), {"default": STORED})

    async def load(self, tenant_id: str) -> TenantPolicies:
        """Never asked."""
        return self.get(tenant_id)

    def hands(self, fate: Fate) -> "Hands":
        """A pod's parts that are under test."""

        def publish(publication: Publication, done: Callable[[Published], None]) -> None:
            def stored() -> None:
                body = orjson.loads(publication.payload)
                if publication.subject.endswith(".dlq"):
                    self.letters.append(body)
                elif publication.subject == INBOX:
                    self.told.append(body)
                elif publication.message_id in self.usage:
                    done(Published.DUPLICATE)
                    return
                else:
                    self.usage.append(publication.message_id)
                done(Published.STORED)

            fate.at_work(stored)

        class Stream:
            """`ports.bus.Publisher`."""

            def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
                """Stored at once."""
                publish(publication, done)

        tasks, decisions = Mortal(self.tasks, fate), Mortal(self.pod.decisions, fate)
        stream, alerts, t = Stream(), Silent(), self.telemetry
        letters = DeadLetters(stream, t, alerts, keep_payload=False, max_bytes=lambda: 1 << 20, wall_ms=lambda: NOW_MS)
        outbox = Outbox(tasks, stream, UsageStream(), t, alerts, dedup_ms=DEDUP_MS, wall_ms=lambda: NOW_MS)
        final_results = FinalResults(tasks, stream, Line(), t)
        effects = TaskEffects(tasks, final_results, t, alerts, tombstone_ms=60_000, max_bytes=lambda: 1 << 20)
        isolation = Isolation(t, alerts)
        parts = tasks, decisions, self, outbox, letters, effects, t, isolation
        failures = RedisDeliveryFailures(self.pod.keys, self.pod.nodes)
        settle = Settle(*parts, failures, max_failures=2, wall_ms=lambda: NOW_MS)
        acks = Acks(tasks, decisions, self, effects, letters, t, isolation, failures, max_failures=2)
        never: Any = None  # parts that no task here comes to
        sweeper = Sweeper(
            *(tasks, never, effects, outbox, never, never, self, t), may_work=lambda: True, now_ms=decisions.now_ms
        )
        return Hands(settle, acks, sweeper, outbox, effects, final_results)

    def settle(self, fate: Fate) -> tuple[Settle, Outbox]:
        """Those that settle."""
        hands = self.hands(fate)
        return hands.settle, hands.outbox

    async def is_due(self, task: bytes) -> bool:
        """Make what is due for a task due now; False: nothing is."""
        due = self.pod.keys.due(partition_in(task))
        return bool(await self.pod.nodes.call("ZADD", due, "XX", "CH", 0, task))

    async def actions(self) -> list[str]:
        """What the audit says."""
        return [e.action for e in await RedisAudit(self.pod.keys, self.pod.nodes).after(TENANT, "0-0")]

    async def ask(self, name: str, tokens: int, **options: Any) -> Any:
        """One decision."""
        wanted = request(TENANT, name, push="result_subject" in options, options=Options(tokens, **options))
        (outcome,) = await self.pod.decide(Ask(wanted, STORED, b"work" if wanted.push_assignment else None))
        return outcome


@pytest.fixture
async def world(redis_url: str) -> AsyncIterator[Callable[[], Any]]:
    """Makes worlds: each is a schema of its own."""
    nodes = SingleNode(redis_url)
    pods: list[Pod] = []

    async def made() -> World:
        pod = Pod(nodes, Keys(schema=f"s{token_hex(5)}"))
        pods.append(await pod.__aenter__())
        return World(pod)

    yield made
    for pod in pods:
        await pod.__aexit__()
    await nodes.close()


def result(**named: Any) -> bytes:
    """A success that used fewer tokens than were reserved."""
    return orjson.dumps({"version": "1", "status": "success", "job": {"type": "chat"}, "tokens": USED, **named})


async def died_and_done(world: World, data: bytes, fate: Fate) -> bool:
    """One pod takes the result and dies; the next one is handed it again, and looks into the outbox. False: nobody
    died."""
    settle, _ = world.settle(fate)
    died = False
    try:
        first = Message(1, data)
        await settle.results([first])
        # The ack is the last act: a pod that dies before it has said nothing.
        fate.at_work(lambda: None)
    except Died:
        died = True
        hands = world.hands(Fate())
        again = Message(1, data, delivered=2)
        await hands.settle.results([again])
        assert again.said == ["ack"]
        for _ in range(2):
            await hands.outbox.poll()
        await hands.outbox.drained()
        named = orjson.loads(data).get("assignment_id")
        if named is not None and await world.is_due(task_of(from_text(named) or b"")):
            await hands.sweeper.poll()
        await hands.final_results.drained()
    return died


@pytest.mark.parametrize("pushed", [True, False])
@pytest.mark.parametrize("after", [True, False])
async def test_a_pod_may_die_at_every_step(world: Callable[[], Any], pushed: bool, after: bool) -> None:
    """Settled, audited, corrected and metered once; the lease is free; a caller who waits has heard of it."""
    for at in range(MAX_STEPS):
        here: World = await world()
        options: Mapping[str, Any] = {"result_subject": INBOX} if pushed else {"meter": True}
        made = await here.ask("r", RESERVED, **options)
        assert isinstance(made, Admitted)
        task = task_id(made.decision_id)
        named = {"assignment_id": to_text(assignment_id(task, 1))} if pushed else {"request_id": "r"}
        data = result(tenant_id=TENANT, **named)
        if not await died_and_done(here, data, Fate(at, after=after)):
            assert at >= 4
            return
        assert (await here.actions()).count("result.settled") == 1
        assert here.usage == [to_text(task if pushed else made.decision_id)]
        assert await here.tasks.usage_left() == 0
        if pushed:
            (record,) = await here.tasks.records([task])
            assert isinstance(record, TaskRecord)
            assert record.state is TaskState.SUCCEEDED
            assert here.told
            assert all(told == here.told[0] and told["ok"] is True for told in here.told)
            assert not await here.is_due(task)
        rest = await here.ask("rest", TOKENS.limit - USED)
        assert isinstance(rest, Admitted), at
        assert isinstance(await here.ask("more", 1), LimitHit)
    raise AssertionError("a result of endless acts")


async def test_results_of_undispatched_decisions_are_read_at_once(world: Callable[[], Any]) -> None:
    """However many come in a batch: one round trip for what they name, one for what they settle."""
    here: World = await world()
    free = policy(provider("only", weight=100))
    wanted = [request(TENANT, f"r{n}") for n in range(50)]
    await here.pod.decide(*(Ask(w, free) for w in wanted))
    settle, _ = here.settle(fate := Fate())
    batch = [Message(n, result(tenant_id=TENANT, request_id=w.request_id)) for n, w in enumerate(wanted)]
    await settle.results(batch)
    assert (await here.actions()).count("result.settled") == 50
    assert fate.acts == 2


async def test_an_answer_that_cannot_be_read_keeps_its_result(world: Callable[[], Any]) -> None:
    """Its result comes again, then is kept as a dead letter; its neighbours are settled."""
    here: World = await world()
    free = policy(provider("only", weight=100))
    bad, good = await here.pod.decide(*(Ask(request(TENANT, n), free) for n in ("bad", "good")))
    assert isinstance(bad, Admitted)
    assert isinstance(good, Admitted)
    key = here.pod.keys.tenant(TENANT).idem(name_in(bad.decision_id))
    await here.pod.nodes.call("DEL", key)
    await here.pod.nodes.call("LPUSH", key, "a list")
    for n in range(8):
        settle, _ = here.settle(Fate())  # another pod each time: they count together
        batch = [Message(1, result(tenant_id=TENANT, request_id="bad"), delivered=n + 1)]
        await settle.results([*batch, *([] if n else [Message(2, result(tenant_id=TENANT, request_id="good"))])])
        assert batch[0].said == (["ack"] if n == 7 else [f"nak {min(2**n, 4)}"])
    assert (await here.actions()).count("result.settled") == 1
    assert [x["error_code"] for x in here.letters] == ["internal"]


async def test_a_damaged_outbox_holds_up_no_other_partition(
    world: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What the others hold is counted, read, published and cleared; the log says so, not at every look."""
    here: World = await world()
    keys = here.pod.keys
    usage_id = bytes([0, 5]) + bytes(14)
    await here.pod.nodes.call("SET", keys.outbox(3), "no hash")
    await here.pod.nodes.call("HSET", keys.outbox(5), usage_id, b'{"timestamp":%d}' % NOW_MS)
    assert await here.tasks.usage_left() == 1
    assert await here.tasks.usage_waits([usage_id, bytes([0, 3]) + bytes(14)]) == [True, False]
    _, outbox = here.settle(Fate())
    for _ in range(2):
        await outbox.poll()
    await outbox.drained()
    assert here.usage == [to_text(usage_id)]
    assert await here.tasks.usage_left() == 0
    assert [r.levelname for r in caplog.records] == ["ERROR"]
