"""Two tenants in one partition, at random: each one's keys and answers are as if it were alone."""

import asyncio
from secrets import token_hex
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from redis import Redis

from router.domain.audit.records import Actor
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, provider, provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.store.tenants.walk import RedisTenants
from router.usecases.admin.purge import Purger
from tests.store.harness import MINUTE, START_MS, Ask, Store, head, policy, request, undispatched

BY = Actor(principal="alice")
STORED = policy(
    provider("a", priority=2, max_concurrency=2),
    provider("b", priority=1),
    limits=[
        limit("tenant", Scope.TENANT, Resource.REQUESTS, 6, MINUTE),
        limit("user", Scope.USER, Resource.REQUESTS, 3, 2 * MINUTE),
        limit("slots", Scope.TENANT, Resource.CONCURRENCY, 4, 0),
        limit("exact", Scope.POLICY, Resource.REQUESTS, 5, MINUTE, algorithm=Algorithm.LOG),
    ],
    breaker=Breaker(failure_threshold=2),
    sticky=Sticky(ttl_ms=10 * MINUTE),
)
TENANTS = ("acme", "globex")


class Step(NamedTuple):
    """One act of one of the two, and how long after the one before. All names are from the same few for both."""

    who: int
    act: str
    name: int
    after_ms: int


STEPS = some.lists(
    some.builds(
        Step,
        some.integers(0, 1),
        some.sampled_from(
            ["decide", "push", "fail", "drain", "enable", "force", "reset", "off", "on", "forget", "purge"]
        ),
        some.integers(0, 4),
        some.sampled_from([0, 1, 500, 7_000, 61_000]),
    ),
    min_size=4,
    max_size=40,
)


class World:
    """A schema with one partition; each tenant has a store, and so random bytes and decisions, of its own."""

    def __init__(self, client: Redis, nodes: SingleNode) -> None:
        self.keys = Keys(f"t{token_hex(5)}", 1)
        self.stores = [Store(client, keys=self.keys) for _ in TENANTS]
        self.nodes = nodes
        self.decisions: list[dict[int, bytes]] = [{}, {}]
        self.now = START_MS
        for tenant in TENANTS:
            client.set(self.keys.tenant(tenant).head, head())

    async def run(self, steps: list[Step], *, only: int | None = None) -> list[list[Any]]:
        """The answers of each step; `only`: the other tenant does nothing, and time passes all the same."""
        answers: list[list[Any]] = []
        for step in steps:
            self.now += step.after_ms
            if only in (None, step.who):
                answers.append(await self.does(step))
        return answers

    async def does(self, step: Step) -> list[Any]:
        """What the act came to, in the words of whoever asked."""
        store, tenant, made = self.stores[step.who], TENANTS[step.who], self.decisions[step.who]
        store.now, n = self.now, step.name
        match step.act:
            case "decide" | "push":
                push = step.act == "push"
                asked = request(tenant, f"r{n}", session=f"s{n % 2}", user=f"u{n % 2}", push=push, message_id=f"m{n}")
                ids: list[bytes] = []
                batch = store.batch([Ask(asked, STORED, b"job" if push else None)], ids)
                reply = store.call(store.decide_script, list(batch.index), [store.header(), *batch.rows])
                made.setdefault(n, ids[0])
                return [repr(store.read(batch, reply))]
            case "fail":
                if n not in made:
                    return []
                move = undispatched(
                    tenant, made[n], BreakerVerdict.FAILURE, Breaker(failure_threshold=2), provider_entry("a")
                )
                return [repr(store.settle(move))]
            case "drain" | "enable":
                return [await store.levers.drain(tenant, provider="a", on=step.act == "drain", by=BY)]
            case "force":
                return [await store.levers.force_open(tenant, provider="b", by=BY)]
            case "reset":
                return [await store.levers.reset_breaker(tenant, provider="b", by=BY)]
            case "off" | "on":
                return [await store.levers.switch(tenant, on=step.act == "on", by=BY)]
            case "forget":
                if n not in made:
                    return []
                return [await store.levers.forget(tenant, made[n][2:12], called=("request_id", f"r{n}"), by=BY)]
        purger = Purger(RedisTenants(self.keys, self.nodes), store.levers, Deaf(), BY, forget_ms=3_600_000)
        return [(await purger.purge(tenant, confirm=tenant)).kinds]

    def own(self, who: int) -> dict[bytes, Any]:
        """The tenant's own keys and what is in them, but for the places of stream entries, which the server chooses."""
        store = self.stores[who]
        prefix = self.keys.tenant(TENANTS[who]).prefix
        found: dict[bytes, Any] = {}
        for key in store.client.scan_iter(prefix + b"*", count=1_000):
            kind: Any = store.client.type(key)
            name = key[len(prefix) :]
            if kind == b"stream":
                rows: Any = store.client.xrange(key)
                found[name] = [fields for _, fields in rows]
            elif name == b"head":
                # The stamp of a tenant that was ended is random.
                found[name] = (store.value(key) or b"")[9:]
            else:
                found[name] = store.client.dump(key)
        return found

    def shared(self) -> dict[bytes, list[bytes]]:
        """What the partition shares: sets with their members, and of other keys the names."""
        client = self.stores[0].client
        prefix = self.keys.tenant(TENANTS[0]).shared
        found: dict[bytes, list[bytes]] = {}
        for key in client.scan_iter(prefix + b"*", count=1_000):
            kind: Any = client.type(key)
            members: Any = client.zrange(key, 0, -1) if kind == b"zset" else [key[-16:]]
            found[key[len(prefix) :]] = members
        return found


class Deaf:
    """An announcer without pods."""

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """Nobody listens."""


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_each_of_two_tenants_is_as_if_alone(single: Redis, redis_url: str, steps: list[Step]) -> None:
    """The same answers and the same keys, to the byte, with and without the other; what they share holds ids only."""

    async def run() -> None:
        nodes = SingleNode(redis_url)
        await nodes.open()
        try:
            both = World(single, nodes)
            answers = await both.run(steps)
            for who, tenant in enumerate(TENANTS):
                alone = World(single, nodes)
                mine = await alone.run(steps, only=who)
                assert mine == [a for a, s in zip(answers, steps, strict=True) if s.who == who]
                assert alone.own(who) == both.own(who)
                assert tenant not in repr(both.own(1 - who))
            for name, members in both.shared().items():
                if name != b"audit":
                    assert [m for m in members if len(m) != 16] == [], name
        finally:
            await nodes.close()

    asyncio.run(run())
