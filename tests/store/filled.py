"""A tenant that has a key of every kind, and all that a schema holds."""

from typing import Any

from router.domain.audit.records import Actor
from router.domain.ids import task_id
from router.domain.policy.limits import limit
from router.domain.policy.model import Breaker, Sticky, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import Algorithm, Resource, Scope
from router.domain.tasks.result import BreakerVerdict
from router.store.audit.retention import RedisRetention, RetentionBounds
from router.store.policies import RedisPolicies
from router.store.servers.meta import RedisEpochs
from router.store.servers.nodes import Nodes
from router.store.tasks.records import kept_final
from tests.store.harness import MINUTE, Ask, Store, policy, request, undispatched

ALICE = Actor(principal="alice", role="admin")
DOCUMENT = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'
RICH: StoredPolicy = policy(
    provider("a", priority=2, max_concurrency=50),
    provider("b", priority=1),
    limits=[
        limit("tenant", Scope.TENANT, Resource.REQUESTS, 1_000, 10 * MINUTE),
        limit("user", Scope.USER, Resource.REQUESTS, 1_000, 10 * MINUTE),
        limit("policy", Scope.POLICY, Resource.REQUESTS, 1_000, 10 * MINUTE),
        limit("provider", Scope.PROVIDER, Resource.REQUESTS, 1_000, 10 * MINUTE),
        limit("slots", Scope.TENANT, Resource.CONCURRENCY, 500, 0),
        limit("exact", Scope.TENANT, Resource.REQUESTS, 100_000, 10 * MINUTE, algorithm=Algorithm.LOG),
    ],
    breaker=Breaker(),
    sticky=Sticky(ttl_ms=10 * MINUTE),
)


async def filled(store: Store, nodes: Nodes, requests: int = 30, tenant: str | None = None) -> tuple[str, list[bytes]]:
    """A tenant with something of every kind, and its decisions."""
    tenant = tenant or store.tenant()
    policies = RedisPolicies(nodes, store.keys)
    for name in ("default", "other", "default"):
        await policies.apply(tenant, policy_id=name, document=DOCUMENT, expect_revision=None)
    await store.levers.force_open(tenant, provider="unused", by=ALICE)
    decisions: list[bytes] = []
    asks = [
        Ask(
            request(tenant, f"r{n}", session=f"s{n}", user=f"u{n % 5}", push=n % 2 == 0, message_id=f"m{n}"),
            RICH,
            b"job" if n % 2 == 0 else None,
        )
        for n in range(requests)
    ]
    batch = store.batch(asks, decisions)
    store.call(store.decide_script, list(batch.index), [store.header(), *batch.rows])
    store.settle(undispatched(tenant, decisions[1], BreakerVerdict.FAILURE, Breaker(), provider_entry("a")))
    store.client.set(store.keys.final(task_id(decisions[0])), kept_final(b"{}"), px=MINUTE)
    retention = RedisRetention(store.keys, nodes, RetentionBounds())
    await retention.register([tenant])
    await retention.trim(tenant, check_ms=1_000, full_ms=1_000, keep_unread=False)
    epochs = RedisEpochs(store.keys, nodes)
    await epochs.begin("audit_cut_inside_age", scope=tenant)
    await epochs.begin("breaker_opened", scope=f"{tenant}/a")
    return tenant, decisions


def content(store: Store, key: bytes) -> Any:
    """All that is under a key."""
    read: dict[bytes, Any] = {
        b"string": lambda: store.client.get(key),
        b"hash": lambda: store.client.hgetall(key),
        b"zset": lambda: store.client.zrange(key, 0, -1, withscores=True),
        b"list": lambda: store.client.lrange(key, 0, -1),
        b"stream": lambda: store.client.xrange(key),
    }
    kind: Any = store.client.type(key)
    return read[kind]()


def everything(store: Store) -> dict[bytes, Any]:
    """Every key of the schema but the tests' clock and the log of no tenant, with its content."""
    keys = set(store.client.scan_iter(f"{store.keys.schema}*", count=5_000))
    return {k: content(store, k) for k in keys if b":clock:" not in k and k != store.keys.acts}
