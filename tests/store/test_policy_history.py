"""The history of policies on a real server: every write leaves what it wrote, within its bound."""

from uuid import uuid4

import pytest

from router.domain.audit.records import Actor
from router.domain.policy.document import content_hash
from router.errors import RevisionConflict, StoreError
from router.store.audit.log import RedisAudit
from router.store.keys import Keys
from router.store.policies import DAY_MS, Bounds, RedisPolicies
from router.store.servers.nodes import SingleNode

ONE = b'{"providers":[{"name":"a","weight":100}],"version":"1.0"}'
TWO = b'{"providers":[{"name":"b","weight":100}],"version":"1.0"}'
ANN = Actor(principal="ann")
KEYS = Keys()


@pytest.fixture
def store(nodes: SingleNode) -> RedisPolicies:
    """The store of policies; four revisions are kept."""
    return RedisPolicies(nodes, KEYS, bounds=Bounds(revisions=4))


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody else uses."""
    return f"t-{uuid4().hex}"


async def test_every_write_is_remembered(store: RedisPolicies, tenant: str) -> None:
    """Newest first: revision, hash, when, by whom, what was done, and the document."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=0, by=ANN)
    await store.apply(tenant, policy_id="other", document=ONE, expect_revision=0)
    await store.apply(tenant, policy_id="default", document=TWO, expect_revision=1)
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=3, by=ANN, restores=1)
    past = await store.history(tenant, policy_id="default")
    assert [(p.revision, p.act, p.restores, p.by, p.document) for p in past] == [
        (4, "rolled_back", 1, "ann", ONE),
        (3, "applied", None, "router", TWO),
        (1, "applied", None, "ann", ONE),
    ]
    record = (await store.records(tenant)).records[0]
    assert (past[0].hash, past[0].written_ms) == (record.hash, record.created_ms)


async def test_the_history_is_bounded(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """The newest four of a policy are kept, for as long as the policy is there."""
    for document in (ONE, TWO) * 4:
        await store.apply(tenant, policy_id="default", document=document, expect_revision=None)
    assert [p.revision for p in await store.history(tenant, policy_id="default")] == [8, 7, 6, 5]
    assert await nodes.call("PTTL", KEYS.tenant(tenant).history("default")) == -1


async def test_the_history_of_a_deleted_policy_ends(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """A delete is remembered, and the history goes 30 days later, unless the policy comes back before."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.delete(tenant, policy_id="default", expect_revision=1, by=ANN)
    past = await store.history(tenant, policy_id="default")
    assert [(p.revision, p.act, p.by, p.hash) for p in past] == [
        (2, "deleted", "ann", None),
        (1, "applied", "router", content_hash(ONE).hex()),
    ]
    key = KEYS.tenant(tenant).history("default")
    assert 29 * DAY_MS < await nodes.call("PTTL", key) <= 30 * DAY_MS
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=0)
    assert await nodes.call("PTTL", key) == -1


async def test_what_an_older_version_wrote_is_not_lost(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """A policy without a history, or written past it, is remembered when it is overwritten; nobody knows by whom."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None, by=ANN)
    await nodes.call("DEL", KEYS.tenant(tenant).history("default"))
    await store.apply(tenant, policy_id="default", document=TWO, expect_revision=None, by=ANN)
    past = await store.history(tenant, policy_id="default")
    assert [(p.revision, p.by, p.document) for p in past] == [(2, "ann", TWO), (1, None, ONE)]


async def test_a_write_that_loses_leaves_nothing(store: RedisPolicies, tenant: str) -> None:
    """Neither the policy's revision nor the tenant's was the expected one: no entry."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    with pytest.raises(RevisionConflict):
        await store.apply(tenant, policy_id="default", document=TWO, expect_revision=0)
    with pytest.raises(RevisionConflict):
        await store.apply(tenant, policy_id="default", document=TWO, expect_revision=1, expect_tenant=7)
    with pytest.raises(RevisionConflict):
        await store.delete(tenant, policy_id="default", expect_revision=7)
    assert len(await store.history(tenant, policy_id="default")) == 1


async def test_a_history_that_cannot_be_written_stops_the_write(
    store: RedisPolicies, nodes: SingleNode, tenant: str
) -> None:
    """One act: with a foreign key in its place neither head, policy nor audit record is there afterwards."""
    keys = KEYS.tenant(tenant)
    await nodes.call("SET", keys.history("default"), "foreign")
    with pytest.raises(StoreError):
        await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    assert await nodes.call("EXISTS", keys.head, keys.policies, keys.audit) == 0


async def test_a_roll_back_is_audited(store: RedisPolicies, nodes: SingleNode, tenant: str) -> None:
    """policy.rolled_back, with who did it and which revision came back."""
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None)
    await store.apply(tenant, policy_id="default", document=ONE, expect_revision=None, by=ANN, restores=1)
    newest = (await RedisAudit(KEYS, nodes).after(tenant, last="0-0"))[-1]
    assert (newest.action, newest.user_id, newest.resource_id) == ("policy.rolled_back", "ann", "default")
    assert newest.details["restored_revision"] == 1
