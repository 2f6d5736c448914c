"""Purging a tenant leaves nothing of it in the store, and nothing of another is touched; counting changes nothing."""

from itertools import count

import pytest

from router.errors import InvalidInput
from router.ports.tenants import Purged
from router.store.keys import NO_TENANT
from router.store.policies import RedisPolicies
from router.store.servers.nodes import Nodes
from router.store.tenants.walk import RedisTenants, kind_of
from router.usecases.admin.purge import Purger
from tests.store.filled import ALICE, DOCUMENT, everything, filled
from tests.store.harness import Store


class Told:
    """An announcer that remembers."""

    def __init__(self) -> None:
        self.changes: list[str] = []

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """A change."""
        assert revision > 0
        self.changes.append(tenant_id)


def purger(store: Store, nodes: Nodes, told: Told | None = None) -> Purger:
    """As the command line makes one."""
    return Purger(RedisTenants(store.keys, nodes), store.levers, told or Told(), ALICE, forget_ms=60_000)


async def test_nothing_of_a_purged_tenant_remains(store: Store, store_nodes: Nodes) -> None:
    """No key, no value and no name of it but its switch, which expires; the other tenant is as it was, to the byte."""
    tenant, decisions = await filled(store, store_nodes)
    before = everything(store)
    other, _ = await filled(store, store_nodes)
    both = everything(store)
    told = Told()
    purged = await purger(store, store_nodes, told).purge(tenant, confirm=tenant, why="asked to")
    after = everything(store)
    head = store.of(tenant).head
    assert [k for k, v in after.items() if tenant.encode() in k + repr(v).encode()] == [head]
    assert 0 < int(store.client.pttl(head)) <= 60_000
    assert [d for d in decisions if after.get(store.of(tenant).idem(d[2:12]))] == []
    mine = {k for k, v in both.items() if other.encode() in k + repr(v).encode()}
    # Shared sets and hashes lose the purged tenant's members only.
    assert {k: after[k] for k in mine if b":~:" not in k and not k.endswith(b":epochs")} == {
        k: both[k] for k in mine if b":~:" not in k and not k.endswith(b":epochs")
    }
    assert set(after) <= set(both)
    assert set(both) - set(after) <= set(before)
    assert told.changes == [tenant]
    assert not purged.answers_may_remain
    assert purged.kinds["idem"] == purged.kinds["message"] == purged.kinds["pin"] == 30
    assert purged.kinds["task"] == purged.kinds["job"] == 15
    (record,) = [e for e in store.audit(NO_TENANT) if e.resource_id == tenant]
    assert (record.action, record.user_id, record.details["why"]) == ("tenant.purged", "alice", "asked to")


async def test_every_kind_of_a_tenants_keys_was_there(store: Store, store_nodes: Nodes) -> None:
    """Else the purge proves less than it says. (Figures come of dispatched results; a claim lives for its call.)"""
    tenant, _ = await filled(store, store_nodes)
    prefix = store.of(tenant).prefix
    kinds = {kind_of(k[len(prefix) :]) for k in everything(store) if k.startswith(prefix)}
    own = {"head", "policies", "history", "state", "state_policy", "state_user", "state_provider"}
    assert kinds == own | {"lease", "log", "pin", "audit", "audit_marks"}


async def test_a_dry_run_changes_nothing_and_tells_the_same(store: Store, store_nodes: Nodes) -> None:
    """But for what ending the tenant takes away itself: its head and its policies."""
    tenant, _ = await filled(store, store_nodes)
    before = everything(store)
    would = await purger(store, store_nodes).would(tenant)
    assert everything(store) == before
    purged = await purger(store, store_nodes).purge(tenant, confirm=tenant)
    ended = {"head": would.kinds.pop("head"), "policies": would.kinds.pop("policies")}
    assert ended == {"head": 1, "policies": 1}
    assert purged.kinds | {"retain": 1} == would.kinds | {"retain": 1}


async def test_the_name_must_be_said(store: Store, store_nodes: Nodes) -> None:
    """Another one, or none, purges nothing."""
    tenant, _ = await filled(store, store_nodes)
    before = everything(store)
    for wrong in (None, "", "another"):
        with pytest.raises(InvalidInput):
            await purger(store, store_nodes).purge(tenant, confirm=wrong)
    assert everything(store) == before


async def test_a_tenant_that_is_not_there(store: Store, store_nodes: Nodes) -> None:
    """Nothing goes, nothing is written, also not to the log."""
    before = everything(store)
    assert await purger(store, store_nodes).purge("nobody", confirm="nobody") == Purged({}, False)
    assert everything(store) == before
    assert store.audit(NO_TENANT) == []


@pytest.mark.parametrize("left", [5, 0])
async def test_answers_are_found_without_the_log(store: Store, store_nodes: Nodes, left: int) -> None:
    """The log was cut, to nothing even: every answer goes all the same, and those of the rest of the partition stay."""
    tenant, decisions = await filled(store, store_nodes)
    other, others = await filled(store, store_nodes)
    store.client.xtrim(store.of(tenant).audit, maxlen=left, approximate=False)
    would = await purger(store, store_nodes).would(tenant)
    purged = await purger(store, store_nodes).purge(tenant, confirm=tenant)
    after = everything(store)
    assert [d for d in decisions if store.of(tenant).idem(d[2:12]) in after] == []
    assert [d for d in others if store.of(other).idem(d[2:12]) not in after] == []
    assert (would.kinds["idem"], purged.kinds["idem"], purged.answers_may_remain) == (30, 30, False)


def same_mark(store: Store) -> tuple[str, str]:
    """Two tenants of one partition whose marks are the same."""
    seen: dict[tuple[int, bytes], str] = {}
    for n in count():
        name = f"twin-{n}"
        owner = store.of(name).partition, store.of(name).owner
        if owner in seen:
            return seen[owner], name
        seen[owner] = name
    raise AssertionError


async def test_a_tenant_of_the_same_mark_loses_nothing(store: Store, store_nodes: Nodes) -> None:
    """One pair of tenants in a billion: then the log tells, and if it was cut, the operator is told what may remain."""
    mine, other = same_mark(store)
    _, decisions = await filled(store, store_nodes, tenant=mine)
    _, others = await filled(store, store_nodes, tenant=other)
    store.client.xtrim(store.of(mine).audit, maxlen=5, approximate=False)
    purged = await purger(store, store_nodes).purge(mine, confirm=mine)
    after = everything(store)
    assert 0 < len([d for d in decisions if store.of(mine).idem(d[2:12]) in after]) < 30
    assert [d for d in others if store.of(other).idem(d[2:12]) not in after] == []
    assert purged.answers_may_remain


async def test_a_census_counts_what_is_there(store: Store, store_nodes: Nodes) -> None:
    """Keys by kind with their bytes, open tasks by state, entries of the log; another tenant's are not among them."""
    tenant, _ = await filled(store, store_nodes)
    await filled(store, store_nodes, requests=7)
    contents = await RedisTenants(store.keys, store_nodes).contents(tenant)
    counts = {k.kind: k.keys for k in contents.kinds}
    assert (counts["pin"], counts["state_user"], counts["history"], counts["head"]) == (30, 5, 2, 1)
    assert all(k.size_bytes > 50 * k.keys for k in contents.kinds)
    assert contents.open_tasks == {"new": 15}
    assert contents.audit_entries == len(store.audit(tenant))
    assert contents.whole


async def test_a_purged_tenant_is_off_until_it_is_enabled(store: Store, store_nodes: Nodes) -> None:
    """A policy that is written again makes it a tenant, switched off, whose head has no life time any more."""
    tenant, _ = await filled(store, store_nodes)
    await purger(store, store_nodes).purge(tenant, confirm=tenant)
    await RedisPolicies(store_nodes, store.keys).apply(
        tenant, policy_id="default", document=DOCUMENT, expect_revision=0
    )
    head = store.of(tenant).head
    assert int(store.client.pttl(head)) == -1
    raw = store.value(head)
    assert raw is not None
    assert raw[9] == 1
    await store.levers.switch(tenant, on=True, by=ALICE)
    assert store.value(head) != raw
