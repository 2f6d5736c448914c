"""Policies on a real server: compare-and-set, revisions that grow, stamps that change."""

import asyncio
from uuid import uuid4

import pytest

from router.domain.audit.records import Actor
from router.domain.policy.document import content_hash
from router.errors import QuotaExceeded, RevisionConflict, StoreError
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.policies import Bounds, RedisPolicies
from router.store.servers.nodes import SingleNode
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.cache_settings import CacheSettings
from tests.usecases.fakes.policies import HeardCache

ONE = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'
TWO = b'{"providers":[{"name":"b","weight":100}],"version":"1.0"}'
KEYS = Keys()


@pytest.fixture
def store(nodes: SingleNode) -> RedisPolicies:
    """The store of policies."""
    return RedisPolicies(nodes, KEYS)


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody else uses."""
    return f"t-{uuid4().hex}"


async def test_what_is_applied_is_loaded(store: RedisPolicies, tenant: str) -> None:
    """A policy comes back compiled, with its revision and the hash of its bytes."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.apply(tenant, policy_id="other", document=TWO, expect_revision=None)
    loaded = await store.load(tenant)
    assert loaded is not None
    assert loaded.revision == 2
    assert {k: (v.revision, v.hash, v.policy.providers[0].name) for k, v in loaded.policies.items()} == {
        "default": (1, content_hash(ONE).hex(), "a"),
        "other": (2, content_hash(TWO).hex(), "b"),
    }


async def test_an_unknown_tenant_leaves_no_keys(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """Loading and listing create nothing; nor does a delete that loses."""
    assert await store.load(tenant) is None
    assert (await store.records(tenant)).records == ()
    with pytest.raises(RevisionConflict):
        await store.delete(tenant, policy_id="default", expect_revision=None)
    keys = KEYS.tenant(tenant)
    assert await nodes.call("EXISTS", keys.head, keys.policies) == 0


async def test_only_if_absent(store: RedisPolicies, tenant: str) -> None:
    """Expecting 0 writes once; the second is told the revision that is there, and changes nothing."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=0)
    with pytest.raises(RevisionConflict) as lost:
        await store.apply(tenant, policy_id="default", document=TWO, expect_revision=0)
    assert lost.value.current == 1
    assert (await store.records(tenant)).records[0].document == ONE


async def test_only_at_a_revision(store: RedisPolicies, tenant: str) -> None:
    """Expecting n counts the policy's own revision, not the tenant's."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.apply(tenant, policy_id="other", document=ONE, expect_revision=None)
    assert await store.apply(tenant, policy_id="default", document=TWO, expect_revision=1) == 3
    with pytest.raises(RevisionConflict) as lost:
        await store.apply(tenant, policy_id="default", document=ONE, expect_revision=1)
    assert lost.value.current == 3


async def test_of_many_that_expect_the_same_one_wins(store: RedisPolicies, tenant: str) -> None:
    """Compare-and-set is atomic: twenty writers at revision 0, one success."""
    tries = [store.apply(tenant, policy_id="default", document=ONE, expect_revision=0) for _ in range(20)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [r for r in results if not isinstance(r, RevisionConflict)] == [1]


async def test_the_revision_grows_over_deletes(store: RedisPolicies, tenant: str) -> None:
    """A policy that is deleted and made again never has an old revision, also when it was the tenant's last."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    assert await store.delete(tenant, policy_id="default", expect_revision=1) == 2
    assert await store.load(tenant) is None
    assert (await store.records(tenant)).revision == 2
    assert await store.apply(tenant, policy_id="default", document=ONE, expect_revision=0) == 3


async def test_a_delete_at_another_revision_loses(store: RedisPolicies, tenant: str) -> None:
    """Nothing is removed when the expectation does not hold."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    with pytest.raises(RevisionConflict) as lost:
        await store.delete(tenant, policy_id="default", expect_revision=7)
    assert lost.value.current == 1
    assert await store.load(tenant) is not None


async def test_every_write_changes_the_stamp(store: RedisPolicies, tenant: str) -> None:
    """Stamps of one tenant never repeat, and open with the revision."""
    stamps = []
    for document in (ONE, ONE, TWO):
        revision = await store.apply(tenant, policy_id="default", document=document, expect_revision=None)
        stamp = (await store.records(tenant)).stamp
        assert int.from_bytes(stamp[:4]) == revision
        stamps.append(stamp)
    assert len(set(stamps)) == 3


async def test_equal_histories_have_unequal_stamps(store: RedisPolicies, tenant: str) -> None:
    """After a loss of data the revisions start over; the random part tells a pod that it is not the same."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.apply(f"{tenant}.again", policy_id="default", document=ONE, expect_revision=None)
    assert (await store.records(tenant)).stamp != (await store.records(f"{tenant}.again")).stamp


async def test_switch_and_levers_survive_a_write(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """Applying a policy does not turn a tenant on again, nor undrain a provider."""
    rest = b"\x01\x00\x01" + b"provider" + b"\x06"
    await nodes.call("SET", KEYS.tenant(tenant).head, b"\x01\x00\x00\x00\x05rand" + rest)
    assert await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None) == 6
    head = await nodes.call("GET", KEYS.tenant(tenant).head)
    assert head[9:] == rest
    assert await store.delete(tenant, policy_id="default", expect_revision=None) == 7
    assert (await nodes.call("GET", KEYS.tenant(tenant).head))[9:] == rest


async def test_policies_do_not_expire(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """Head and policies have no time to live."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    keys = KEYS.tenant(tenant)
    assert [await nodes.call("PTTL", k) for k in (keys.head, keys.policies)] == [-1, -1]


async def test_a_tenant_has_so_many_policies(nodes: SingleNode, tenant: str) -> None:
    """One more than the bound is refused; changing one of them is not."""
    store = RedisPolicies(nodes, KEYS, bounds=Bounds(policies=3))
    for n in range(3):
        await store.apply(tenant, policy_id=f"p{n}", document=ONE, expect_revision=0)
    with pytest.raises(QuotaExceeded, match="would have 4 policies, at most 3"):
        await store.apply(tenant, policy_id="one-more", document=ONE, expect_revision=None)
    await store.apply(tenant, policy_id="p0", document=TWO, expect_revision=1)


async def test_a_policy_of_a_newer_language_is_left_out(
    nodes: SingleNode, tenant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is unreadable is reported, and the tenant's other policies serve."""
    store = RedisPolicies(nodes, KEYS)
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.apply(
        tenant, policy_id="newer", document=b'{"providers":[{"name":"a","weight":1,"quantum":1}]}', expect_revision=None
    )
    await nodes.call("HSET", KEYS.tenant(tenant).policies, "foreign", b"\x09whatever it is")
    loaded = await store.load(tenant)
    assert loaded is not None
    assert list(loaded.policies) == ["default"]
    said = sorted(r.getMessage() for r in caplog.records if "left out" in r.getMessage())
    assert [line.split(" is unreadable")[0] for line in said] == [
        f"policy foreign of tenant {tenant}",
        f"policy newer of tenant {tenant}",
    ]
    assert store.unreadable(tenant) == {"newer"}
    await store.apply(tenant, policy_id="newer", document=ONE, expect_revision=None)
    await store.load(tenant)
    assert store.unreadable(tenant) == frozenset()


async def test_tenants_do_not_see_each_other(store: RedisPolicies, tenant: str) -> None:
    """A tenant whose name is another's with a suffix has policies of its own."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    assert await store.load(f"{tenant}.x") is None


async def test_a_server_that_is_away() -> None:
    """No server: a StoreError, not a client's own exception."""
    nowhere = SingleNode("redis://127.0.0.1:1/0", timeout_s=0.2)
    with pytest.raises(StoreError):
        await RedisPolicies(nowhere, KEYS).load("acme")
    await nowhere.close()


async def test_the_mark_of_a_complete_seed(plain: SingleNode) -> None:
    """The mark is there once it is set, under the schema's own key."""
    store = RedisPolicies(plain, Keys(schema=f"t{uuid4().hex[:8]}"))
    assert await store.seeded() is False
    await store.mark_seeded()
    assert await store.seeded() is True


async def test_ten_thousand_policies_are_loaded(store: RedisPolicies, tenant: str) -> None:
    """100 tenants of 100 policies each: all are in the cache, within its bound, and none was left out."""
    names = [f"{tenant}.{n}" for n in range(100)]

    async def fill(name: str) -> None:
        for n in range(100):
            await store.apply(name, policy_id=f"p{n}", document=ONE, expect_revision=0)

    for at in range(0, 100, 20):
        await asyncio.gather(*map(fill, names[at : at + 20]))
    cache = PolicyCache(store, HeardCache(), clock=lambda: 0.0)
    found = [await cache.load(name) for name in names]
    assert sum(len(f.policies) for f in found if f is not None) == 10_000
    assert cache.tenants == 100
    assert cache.size_bytes < CacheSettings().max_bytes


async def test_every_write_says_who_made_it(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """Apply, roll back and delete leave a record each: actor, role, policy, revisions before and after, hash."""
    alice = Actor(principal="alice", role="admin", trace_id="trace-1")
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.apply(tenant, policy_id="default", document=TWO, expect_revision=None, by=alice)
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=2, by=alice, restores=1)
    await store.delete(tenant, policy_id="default", expect_revision=None, by=alice)
    log = await RedisAudit(KEYS, nodes).after(tenant, last="0-0")
    assert [(e.action, e.user_id, e.resource_type, e.resource_id) for e in log] == [
        ("policy.applied", "router", "policy", "default"),
        ("policy.applied", "alice", "policy", "default"),
        ("policy.rolled_back", "alice", "policy", "default"),
        ("policy.deleted", "alice", "policy", "default"),
    ]
    digest, other = content_hash(ONE).hex(), content_hash(TWO).hex()
    assert [e.details for e in log] == [
        {"policy_revision": 1, "policy_hash": digest},
        {"policy_revision": 2, "policy_revision_before": 1, "policy_hash": other, "role": "admin"},
        {
            "policy_revision": 3,
            "policy_revision_before": 2,
            "policy_hash": digest,
            "role": "admin",
            "restored_revision": 1,
        },
        {"policy_revision": 4, "policy_revision_before": 3, "role": "admin"},
    ]
    assert log[1].trace_id == "trace-1"


async def test_a_write_that_lost_is_not_recorded(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """Nothing was written, so there is nothing in the log either, nor a key for it."""
    with pytest.raises(RevisionConflict):
        await store.apply(tenant, policy_id="default", document=ONE, expect_revision=4)
    with pytest.raises(RevisionConflict):
        await store.delete(tenant, policy_id="default", expect_revision=None)
    assert await nodes.call("EXISTS", KEYS.tenant(tenant).audit) == 0


async def test_a_record_that_cannot_be_written_stops_the_write(
    store: RedisPolicies, nodes: SingleNode, tenant: str
) -> None:
    """Act and record are one: with a foreign key in the log's place neither head nor policy is there afterwards."""
    keys = KEYS.tenant(tenant)
    await nodes.call("SET", keys.audit, "foreign")
    with pytest.raises(StoreError):
        await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    assert await nodes.call("EXISTS", keys.head, keys.policies) == 0


async def test_a_record_only_lengthens_the_life_of_the_log(nodes: SingleNode, tenant: str) -> None:
    """A command line with another retention than the pods' does not shorten what they keep."""
    await RedisPolicies(nodes, KEYS, bounds=Bounds(audit_ms=900_000)).apply(
        tenant, policy_id="default", document=ONE, expect_revision=None
    )
    await RedisPolicies(nodes, KEYS, bounds=Bounds(audit_ms=1_000)).apply(
        tenant, policy_id="default", document=TWO, expect_revision=None
    )
    assert await nodes.call("PTTL", KEYS.tenant(tenant).audit) > 800_000
