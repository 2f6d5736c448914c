"""The last step of an unfinished decision, as one act: finished with what was added, or forgotten."""

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from router.domain.ids import RANDOM_BYTES, name_in
from router.domain.outcome import Admitted, Busy, Remembered, Replay
from router.domain.plan import Plan
from router.store.packing import remembered
from router.store.scripts import load
from tests.store.harness import Ask, Store, policy, request

PLAIN = policy("a", "b")
COMPLETE = load(
    "complete",
    keys=("idem", "claim"),
    argv=("random", "claim_id", "metadata"),
    returns={0: "done", 1: "gone"},
)
ABANDON = load("abandon", keys=("idem", "claim"), argv=("random", "claim_id"), returns={0: "let_go", 1: "busy"})
OTHER = b"another-claim-id"


class Unfinished(Ask):
    """A row whose decision is to be finished later."""

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unfinished=True)


class Begun:
    """A request that was claimed and decided, and is not finished."""

    def __init__(self, store: Store) -> None:
        self.store, self.tenant = store, store.tenant()
        self.request = request(self.tenant, "r")
        previewed = store.preview(self.request, PLAIN, claim_ms=60_000)
        (made,) = store.decide(Unfinished(self.request, PLAIN))
        assert isinstance(previewed, Admitted)
        assert isinstance(made, Admitted)
        self.claim, self.decision = previewed.decision_id, made.decision_id
        keys = store.of(self.tenant)
        self.partition, self.name = keys.partition, name_in(self.decision)
        self.keys = [keys.idem(self.name), keys.claim(self.name)]

    def kept(self) -> Remembered | None:
        """What is remembered."""
        raw = self.store.value(self.keys[0])
        return None if raw is None else remembered(raw, self.partition, self.name)

    def complete(self, metadata: bytes = b"", decision: bytes | None = None) -> int:
        """Finish it."""
        random = (decision or self.decision)[-RANDOM_BYTES:]
        (code,) = self.store.call(COMPLETE, self.keys, [random, self.claim, metadata])
        return int(code)

    def abandon(self, claim: bytes | None = None, random: bytes | None = None) -> int:
        """Forget it."""
        named = self.decision[-RANDOM_BYTES:] if random is None else random
        (code,) = self.store.call(ABANDON, self.keys, [named, claim or self.claim])
        return int(code)


@pytest.fixture
def begun(store: Store) -> Begun:
    """On the session's server and on its Cluster."""
    return Begun(store)


def test_an_unfinished_decision_is_known_as_such(begun: Begun) -> None:
    """Whoever reads it sees that it is not done, and its claim keeps others away."""
    kept = begun.kept()
    assert kept is not None
    assert (kept.decision_id, kept.unfinished, kept.metadata) == (begun.decision, True, {})
    again = begun.store.preview(begun.request, PLAIN, claim_ms=1_000)
    assert isinstance(again, Replay)
    assert again.remembered.unfinished


def test_a_claim_keeps_others_away(store: Store) -> None:
    """Before there is a decision: busy, with the time that is left."""
    tenant = store.tenant()
    assert isinstance(store.preview(request(tenant, "r"), PLAIN, claim_ms=60_000), Admitted)
    busy = store.preview(request(tenant, "r"), PLAIN, claim_ms=60_000)
    assert isinstance(busy, Busy)
    assert 0 < busy.left_ms <= 60_000


def test_complete_finishes_once(begun: Begun) -> None:
    """With what was added, its life time as it was, the claim gone; a repeat says so and changes nothing."""
    assert begun.complete(msgpack.encode({"region": "eu"})) == 0
    first = begun.kept()
    assert first is not None
    assert (first.unfinished, first.metadata) == (False, {"region": "eu"})
    left = begun.store.client.pttl(begun.keys[0])
    assert isinstance(left, int)
    assert 86_000_000 < left <= 86_400_000
    assert begun.store.value(begun.keys[1]) is None
    assert begun.complete(msgpack.encode({"region": "us"})) == 0
    assert begun.kept() == first


def test_complete_leaves_the_claim_of_another_alone(begun: Begun) -> None:
    """Ours has run out and somebody else took it: the decision is finished, their claim stays theirs."""
    begun.store.client.set(begun.keys[1], OTHER)
    assert begun.complete() == 0
    kept = begun.kept()
    assert kept is not None
    assert not kept.unfinished
    assert begun.store.value(begun.keys[1]) == OTHER


def test_complete_leaves_another_decision_alone(begun: Begun) -> None:
    """Ours is gone: nothing is written, and the claim of who came after us stays."""
    begun.store.client.set(begun.keys[1], OTHER)
    assert begun.complete(decision=bytes(16)) == 1
    kept = begun.kept()
    assert kept is not None
    assert kept.unfinished
    assert begun.store.value(begun.keys[1]) == OTHER


def test_abandon_forgets(begun: Begun) -> None:
    """The request is new again."""
    assert begun.abandon() == 0
    assert begun.kept() is None
    assert begun.store.value(begun.keys[1]) is None
    assert isinstance(begun.store.one(begun.request, PLAIN), Admitted)


def test_abandon_waits_for_who_is_at_it(begun: Begun) -> None:
    """Another claim is held: nothing is written."""
    assert begun.abandon(OTHER) == 1
    assert begun.kept() is not None
    assert begun.store.value(begun.keys[1]) == begun.claim


def test_what_is_finished_is_not_forgotten(begun: Begun) -> None:
    """Nor is another decision."""
    assert begun.abandon(random=bytes(RANDOM_BYTES)) == 0
    assert begun.kept() is not None
    begun.complete()
    assert begun.abandon() == 0
    kept = begun.kept()
    assert kept is not None
    assert not kept.unfinished


def test_letting_go_keeps_the_decision(begun: Begun) -> None:
    """A claim without a decision's name is only let go."""
    assert begun.abandon(random=b"") == 0
    assert begun.store.value(begun.keys[1]) is None
    assert begun.kept() is not None
