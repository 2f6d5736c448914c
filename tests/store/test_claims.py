"""The last step of an unfinished decision, as one act: finished with what was added, or forgotten."""

import pytest
from msgspec import msgpack

from router.domain.decide.outcome import Admitted, Busy, Replay
from router.domain.ids import RANDOM_BYTES
from tests.store.claimed import PLAIN, Begun
from tests.store.harness import Store, request

OTHER = b"another-claim-id"


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
