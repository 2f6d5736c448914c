"""Explanations: every answer says the policy, each provider once with its verdict, the limits, pin and idempotency."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from router.domain.decide.answers import answer, degraded
from router.domain.decide.decision import Decided, PinState, Reason, Refused, Verdict
from router.domain.decide.explain import explanation
from router.domain.decide.outcome import (
    Admitted,
    Conflict,
    LimitHit,
    NoCandidate,
    Observations,
    Outcome,
    Replay,
    StoredAnswer,
    TenantOff,
)
from router.domain.decide.plan import plan
from router.domain.decide.request import Constraints, DecideRequest
from router.domain.ids import decision_id, idempotency_name
from router.domain.levers import NO_HEAD
from router.domain.policy.limits import limit
from router.domain.policy.model import Policy, Sticky, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import OnStoreError, Resource, Scope

ID = decision_id(3, idempotency_name("acme", "request", "r"), b"\x00\x00\x00\x07")
POLICY = StoredPolicy(
    "default",
    4,
    "ab" * 8,
    Policy(
        (
            provider("a", priority=3, expected_latency_ms=120, expected_cost_microusd=30_000),
            provider("b", priority=2),
            provider("c", priority=1),
            provider("slow", expected_latency_ms=900),
        ),
        limits=(
            limit("burst", Scope.TENANT, Resource.REQUESTS, 9, 60_000),
            limit("shade", Scope.TENANT, Resource.TOKENS, 5, 60_000, shadow=True, default_estimate=7),
        ),
        sticky=Sticky(),
    ),
)
REQUEST = DecideRequest(
    "acme",
    "r",
    "default",
    "chat",
    bytes(8),
    context={"session_id": "s"},
    constraints=Constraints(max_latency_ms=500, max_cost_microusd=2_000_000),
)
PLAN = plan(REQUEST, POLICY)
SEEN = Observations((2, 5), (29_000, None, None), provider_entry("a"))
MADE = Admitted(1, Reason.CIRCUIT_BREAKER_FALLBACK, bytes((2, 1, 0)), PinState.LEFT, ID, (1,), SEEN)
KEPT = StoredAnswer(ID, "a", Reason.WEIGHTED, "default", 3, 100, 5, pushed=False, fallback_used=False, settled=False)


def why(outcome: Outcome) -> dict[str, Any]:
    """The explanation in the answer."""
    found = answer(outcome, REQUEST, PLAN, explain=True)
    told: Any = found.explain if isinstance(found, Decided) else found.details["explain"]
    return dict(told)


def test_a_providers_own_limit_is_named() -> None:
    """Beside the verdict: which limit, and what it had left."""
    own = limit("own", Scope.PROVIDER, Resource.REQUESTS, 9, 60_000)
    made = plan(REQUEST, StoredPolicy("default", 1, "h", Policy(providers=(provider("a"),), limits=(own,))))
    told: Any = explanation(REQUEST, made, verdicts=bytes((5,)), seen=Observations(own_left={0: {0: 3}}))
    (line,) = told["candidates"]
    assert (line["verdict"], line["limits"]) == ("provider_limit", [{"limit_id": "own", "left_before": 3}])


def test_a_decision_says_everything() -> None:
    """Policy, candidates in order with verdict and moment, limits with what was left, pin, idempotency, bounds."""
    assert why(MADE) == {
        "policy_id": "default",
        "policy_revision": 4,
        "policy_hash": "ab" * 8,
        "candidates": [
            {"provider_id": "slow", "verdict": "constraint", "expected_latency_ms": 900, "expected_cost": 0.0},
            {
                "provider_id": "a",
                "by": "weighted",
                "verdict": "breaker_open",
                "expected_latency_ms": 120,
                "expected_cost": 0.03,
                "fit_in_ms": 29_000,
            },
            {
                "provider_id": "b",
                "by": "weighted",
                "verdict": "chosen",
                "expected_latency_ms": 0,
                "expected_cost": 0.0,
            },
            {
                "provider_id": "c",
                "by": "weighted",
                "verdict": "not_reached",
                "expected_latency_ms": 0,
                "expected_cost": 0.0,
            },
        ],
        "limits": [
            {
                "limit_id": "burst",
                "scope": "tenant",
                "resource": "requests",
                "mode": "enforce",
                "limit": 9,
                "window_ms": 60_000,
                "units": 1,
                "left_before": 2,
                "would_refuse": False,
            },
            {
                "limit_id": "shade",
                "scope": "tenant",
                "resource": "tokens",
                "mode": "shadow",
                "limit": 5,
                "window_ms": 60_000,
                "units": 7,
                "left_before": 5,
                "would_refuse": True,
            },
        ],
        "pin": "left",
        "pinned_to": "a",
        "pin_cause": "breaker_open",
        "idempotency": "fresh",
        "figures_version": 0,
        "degraded": False,
        "constraints": {"max_latency_ms": 500, "max_cost": 2.0},
    }


@pytest.mark.parametrize(
    ("outcome", "idempotency"),
    [
        (MADE, "fresh"),
        (LimitHit(0, 5, SEEN), "fresh"),
        (NoCandidate(bytes((2, 2, 2)), 5, SEEN), "fresh"),
        (Conflict(), "conflict"),
        (TenantOff(), "fresh"),
        (Replay(KEPT), "replayed"),
    ],
)
def test_every_answer_can_say_why(outcome: Outcome, idempotency: str) -> None:
    """Made or refused: policy, revision, idempotency, and that it is not degraded."""
    told = why(outcome)
    assert (told["policy_id"], told["idempotency"], told["degraded"]) == ("default", idempotency, False)
    assert told["policy_revision"] == (3 if idempotency == "replayed" else 4)


@given(verdicts=some.binary(max_size=5), left=some.lists(some.integers(), max_size=3), pin=some.sampled_from(PinState))
def test_every_provider_is_there_once(verdicts: bytes, left: list[int], pin: PinState) -> None:
    """However far the row came, every provider has one line and every limit too."""
    told = why(Admitted(0, Reason.WEIGHTED, verdicts, pin, ID, (), Observations(tuple(left))))
    assert sorted(c["provider_id"] for c in told["candidates"]) == ["a", "b", "c", "slow"]
    assert [x["limit_id"] for x in told["limits"]] == ["burst", "shade"]


def test_a_degraded_decision_says_so() -> None:
    """The first candidate is taken, nothing was looked at, and nobody knows whether the request was answered before."""
    allowing = StoredPolicy("default", 4, "h", Policy(POLICY.policy.providers))
    made = plan(REQUEST, allowing)
    found = degraded(REQUEST, made, NO_HEAD, default=OnStoreError.ALLOW, decision_id="id", explain=True)
    assert isinstance(found, Decided)
    assert found.explain is not None
    assert (found.explain["degraded"], found.explain["idempotency"]) == (True, "unknown")
    verdicts = [c["verdict"] for c in found.explain["candidates"]]  # type: ignore[union-attr, index, call-overload]
    assert verdicts == ["constraint", Verdict.CHOSEN.label, "not_reached", "not_reached"]


def test_who_does_not_ask_is_not_told() -> None:
    """Without the wish there is no explanation in any answer."""
    made = answer(MADE, REQUEST, PLAN, explain=False)
    refused = answer(LimitHit(0, 5), REQUEST, PLAN, explain=False)
    assert isinstance(made, Decided)
    assert isinstance(refused, Refused)
    assert made.explain is None
    assert "explain" not in refused.details
