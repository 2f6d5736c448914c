"""What a change of weights means for requests."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.decide.plan import plan
from router.domain.decide.request import DecideRequest
from router.domain.policy.model import Policy, StoredPolicy, provider
from router.domain.policy.shares import share_changes
from router.domain.policy.vocabulary import Selection
from tests.examples import examples

MANY = 4_000


def policy(**weights: float) -> Policy:
    """Providers with these weights."""
    return Policy(tuple(provider(name, weight) for name, weight in weights.items()))


def test_shares_are_relative_to_the_sum() -> None:
    """A weight that grows takes from the others; what stays is not told."""
    changes = share_changes(policy(a=50, b=25, c=25), after=policy(a=50, b=40, c=10))
    assert [str(c) for c in changes] == ["b 25 % → 40 %", "c 25 % → 10 %"]


def test_a_new_and_a_deleted_policy() -> None:
    """From nothing, and to nothing."""
    assert [str(c) for c in share_changes(None, after=policy(a=2, b=1))] == ["a 0 % → 66.7 %", "b 0 % → 33.3 %"]
    assert [str(c) for c in share_changes(policy(a=1), after=None)] == ["a 100 % → 0 %"]


def test_only_the_highest_priority_is_first() -> None:
    """A lower priority, a weight of 0 and best_score have no share."""
    tiers = Policy((provider("a", 1, priority=1), provider("b", 100), provider("z", 0, priority=9)))
    assert [str(c) for c in share_changes(policy(a=1, b=1), after=tiers)] == ["a 50 % → 100 %", "b 50 % → 0 %"]
    assert share_changes(None, after=Policy((provider("a", 1),), Selection.BEST_SCORE)) == ()


@pytest.mark.heavy
@examples(15)
@given(st.tuples(*[st.integers(0, 100)] * 3), st.tuples(*[st.integers(0, 100)] * 3))
def test_what_is_told_is_what_happens(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """The shares of planned requests change as told, within three points over 4,000 requests."""
    old, new = (policy(**dict(zip("abc", weights, strict=True))) for weights in (before, after))
    told = {c.provider: c.after - c.before for c in share_changes(old, after=new)}
    was, is_now = firsts(old), firsts(new)
    for name in "abc":
        assert abs((is_now[name] - was[name]) / MANY - told.get(name, 0.0)) < 0.03


def firsts(of: Policy) -> Counter[str]:
    """The first candidates of many requests."""
    stored = StoredPolicy("default", 1, "0" * 16, of)
    plans = (plan(DecideRequest("acme", f"r{n}", "default", "chat", bytes(8)), stored) for n in range(MANY))
    return Counter(p.candidates[0].provider.name for p in plans if p.candidates)
