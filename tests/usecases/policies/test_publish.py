"""Writing policies: compare-and-set, dry runs, and what changes for whom."""

import orjson
import pytest

from router.domain.json import JsonObject
from router.domain.policy.diff import diff
from router.errors import InvalidInput, RevisionConflict
from router.usecases.policies.publish import PolicyPublisher
from tests.usecases.fakes.policies import ONE, TWO, HeardSeed, MemoryPolicies

LIMITED = orjson.dumps(
    {
        "providers": [{"name": "a", "weight": 60}, {"name": "c", "weight": 40}],
        "limits": [{"id": "x", "scope": "tenant", "resource": "requests", "limit": 5, "window": "60s"}],
    }
)


class World:
    """A publisher on a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryPolicies()
        self.heard = HeardSeed()
        self.publisher = PolicyPublisher(self.store, self.heard)

    async def apply(self, document: bytes, **how: object) -> list[str]:
        """Apply acme's default policy; the changes as text."""
        published = await self.publisher.apply("acme", policy_id="default", document=document, **how)  # type: ignore[arg-type]
        return [str(c) for c in published.changes]


@pytest.fixture
async def world() -> World:
    """A world of its own."""
    return World()


async def test_a_new_policy_is_written_and_announced(world: World) -> None:
    """All of it is new; the pods are told the new revision."""
    changes = await world.apply(ONE)
    assert changes == ["+ providers[a]: weight 100", "+ version: 1.0"]
    assert world.heard.announced == [("acme", 1)]


async def test_changes_name_providers_weights_and_limits(world: World) -> None:
    """What is different is said in the document's words, by name."""
    await world.apply(ONE)
    assert await world.apply(LIMITED) == [
        "+ limits[x]: limit 5, resource requests, scope tenant, window 1m",
        "~ providers[a].weight: 100 → 60",
        "+ providers[c]: weight 40",
    ]


async def test_what_is_written_is_canonical(world: World) -> None:
    """An old form is stored in the present one."""
    await world.apply(b'{"weights":{"a":1}}')
    record = await world.publisher.show("acme", policy_id="default")
    assert record is not None
    assert record.document == ONE


async def test_the_same_content_is_not_written_again(world: World) -> None:
    """Neither revision nor announcement; the answer says so."""
    await world.apply(ONE)
    again = await world.publisher.apply("acme", policy_id="default", document=b'{"weights":{"a":100}}')
    assert (again.changed, again.revision, again.changes) == (False, 1, ())
    assert world.store.writes == 1
    assert len(world.heard.announced) == 1


async def test_a_dry_run_changes_nothing(world: World) -> None:
    """It tells the changes and writes nothing."""
    await world.apply(ONE)
    dry = await world.publisher.apply("acme", policy_id="default", document=TWO, dry_run=True)
    assert (dry.changed, dry.dry_run, dry.revision, len(dry.changes)) == (True, True, 1, 2)
    assert world.store.writes == 1


async def test_an_expectation_that_does_not_hold(world: World) -> None:
    """Somebody wrote in between: refused with the revision that is there, also in a dry run."""
    await world.apply(ONE)
    for dry_run in (True, False):
        with pytest.raises(RevisionConflict) as lost:
            await world.publisher.apply("acme", policy_id="default", document=TWO, expect_revision=7, dry_run=dry_run)
        assert lost.value.current == 1
    assert world.store.writes == 1


async def test_without_expectation_a_lost_race_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes that are told are those against what was really there."""
    await world.apply(ONE)
    records = world.store.records

    async def raced(tenant_id: str) -> object:
        found = await records(tenant_id)
        monkeypatch.setattr(world.store, "records", records)
        await world.store.apply("acme", policy_id="default", document=TWO, expect_revision=None)
        return found

    monkeypatch.setattr(world.store, "records", raced)
    assert await world.apply(LIMITED) == [
        "+ limits[x]: limit 5, resource requests, scope tenant, window 1m",
        "+ providers[a]: weight 60",
        "- providers[b]: weight 100",
        "+ providers[c]: weight 40",
    ]


async def test_bad_documents_and_bad_names_are_refused(world: World) -> None:
    """Nothing is written for either."""
    with pytest.raises(InvalidInput, match="providers: is required"):
        await world.apply(b"{}")
    with pytest.raises(InvalidInput, match=r"tenant_id: 'a b' is not a valid id .*policy_id: '' is not"):
        await world.publisher.apply("a b", policy_id="", document=ONE)
    assert world.store.writes == 0


async def test_delete(world: World) -> None:
    """A deleted policy is gone and announced; a second delete has nothing to delete."""
    await world.apply(ONE)
    gone = await world.publisher.delete("acme", policy_id="default")
    assert (gone.revision, len(gone.changes)) == (2, 2)
    assert world.heard.announced == [("acme", 1), ("acme", 2)]
    assert await world.publisher.show("acme", policy_id="default") is None
    with pytest.raises(RevisionConflict):
        await world.publisher.delete("acme", policy_id="default")


async def test_roll_back(world: World) -> None:
    """What the policy was is written as a new revision, announced, with the changes that this means."""
    await world.apply(ONE)
    await world.apply(TWO)
    back = await world.publisher.rollback("acme", policy_id="default", revision=1)
    assert (back.revision, back.changed) == (3, True)
    assert [str(c) for c in back.changes] == ["+ providers[a]: weight 100", "- providers[b]: weight 100"]
    assert world.heard.announced[-1] == ("acme", 3)
    past = await world.publisher.history("acme", policy_id="default")
    assert [(p.revision, p.act, p.restores) for p in past] == [
        (3, "rolled_back", 1),
        (2, "applied", None),
        (1, "applied", None),
    ]


async def test_roll_back_brings_a_deleted_policy_back(world: World) -> None:
    """The history outlives the policy; the delete itself is nothing to go back to."""
    await world.apply(ONE)
    await world.publisher.delete("acme", policy_id="default")
    with pytest.raises(InvalidInput, match=r"revision: 2 is where the policy was deleted \(there are: 1\)"):
        await world.publisher.rollback("acme", policy_id="default", revision=2)
    assert (await world.publisher.rollback("acme", policy_id="default", revision=1)).revision == 3
    assert await world.publisher.show("acme", policy_id="default") is not None


async def test_roll_back_to_what_is_there(world: World) -> None:
    """Nothing is written when the policy says the same already, nor in a dry run, nor for an unknown revision."""
    await world.apply(ONE)
    assert not (await world.publisher.rollback("acme", policy_id="default", revision=1)).changed
    await world.apply(TWO)
    assert (await world.publisher.rollback("acme", policy_id="default", revision=1, dry_run=True)).changed
    with pytest.raises(InvalidInput, match=r"revision: 9 is not in the history \(there are: 2, 1\)"):
        await world.publisher.rollback("acme", policy_id="default", revision=9)
    with pytest.raises(RevisionConflict):
        await world.publisher.rollback("acme", policy_id="default", revision=1, expect_revision=1)
    assert world.store.writes == 2


async def test_another_policy_written_meanwhile_is_no_conflict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotas are of the tenant, so its revision is compared; a change of another policy only means to look again."""
    await world.apply(ONE)
    records = world.store.records

    async def raced(tenant_id: str) -> object:
        found = await records(tenant_id)
        monkeypatch.setattr(world.store, "records", records)
        await world.store.apply("acme", policy_id="other", document=TWO, expect_revision=None)
        return found

    monkeypatch.setattr(world.store, "records", raced)
    done = await world.publisher.apply("acme", policy_id="default", document=TWO, expect_revision=1)
    assert (done.changed, done.revision) == (True, 3)


async def test_list(world: World) -> None:
    """All policies of the tenant, and nobody else's."""
    await world.apply(ONE)
    await world.publisher.apply("globex", policy_id="default", document=TWO)
    listed = await world.publisher.list("acme")
    assert [(r.policy_id, r.revision) for r in listed.records] == [("default", 1)]


def test_the_order_of_providers_is_no_change() -> None:
    """Candidates are ordered by hash, so the order in the document means nothing."""
    a: JsonObject = {"name": "a", "weight": 1}
    b: JsonObject = {"name": "b", "weight": 2}
    assert diff({"providers": [a, b]}, after={"providers": [b, a]}) == ()


def test_the_order_of_fallbacks_is_a_change() -> None:
    """The first rule that matches counts, so they are compared as a whole."""
    a: JsonObject = {"to": "a"}
    b: JsonObject = {"to": "b"}
    changes = diff({"fallbacks": [a, b]}, after={"fallbacks": [b, a]})
    assert [c.path for c in changes] == ["fallbacks"]
