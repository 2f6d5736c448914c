"""What the store said → what the caller is told: codes, details, jitter that is never negative."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from router.domain.decide.admission import Shed
from router.domain.decide.answers import MIN_JITTER_MS, answer, degraded, overloaded
from router.domain.decide.decision import Code, Decided, PinState, Reason, Refused, Verdict
from router.domain.decide.outcome import (
    Admitted,
    Conflict,
    LimitHit,
    NoCandidate,
    Observations,
    Outcome,
    Replay,
    RowFault,
    StoredAnswer,
    TenantOff,
    Unavailable,
)
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import Constraints, DecideRequest
from router.domain.ids import decision_id, idempotency_name, task_id, to_text
from router.domain.levers import NO_HEAD, TenantHead
from router.domain.policy.limits import limit
from router.domain.policy.model import Policy, Sticky, StoredPolicy, provider, provider_entry
from router.domain.policy.vocabulary import OnStoreError, Resource, Scope

ID = decision_id(3, idempotency_name("acme", "request", "r"), b"\x00\x00\x00\x07")
LIMITS = (
    limit("shade", Scope.TENANT, Resource.REQUESTS, 1, 60_000, shadow=True),
    limit("burst", Scope.USER, Resource.TOKENS, 9, 60_000),
)


def policy(*limits: object, **more: object) -> StoredPolicy:
    """Three providers, the third one too slow for a constraint of 500 ms."""
    providers = (
        provider("a", priority=2, expected_latency_ms=120, expected_cost_microusd=30),
        provider("b", priority=1),
        provider("slow", expected_latency_ms=900),
    )
    return StoredPolicy("default", 4, "ab" * 8, Policy(providers, limits=limits, **more))  # type: ignore[arg-type]


def ask(**more: object) -> DecideRequest:
    """A request that the slow provider is out of."""
    options = {"constraints": Constraints(max_latency_ms=500)} | more
    return DecideRequest("acme", "r", "default", "chat", bytes(8), **options)  # type: ignore[arg-type]


def told(outcome: Outcome, *, explain: bool = False, stored: StoredPolicy | None = None, **more: object) -> object:
    """The answer to a request whose row came to this."""
    wanted = ask(**more)
    return answer(outcome, wanted, plan(wanted, stored or policy(*LIMITS)), explain=explain)


def refused(outcome: Outcome, **more: object) -> Refused:
    """The refusal that it came to."""
    found = told(outcome, **more)  # type: ignore[arg-type]
    assert isinstance(found, Refused)
    return found


def test_an_admitted_row_is_the_chosen_candidates() -> None:
    """Provider, figures, policy and id; the assignment's id only when it was dispatched."""
    found = told(Admitted(0, Reason.WEIGHTED, b"\x01\x00", PinState.NONE, ID))
    assert isinstance(found, Decided)
    d = found.decision
    assert (d.provider_id, d.reason, d.expected_latency_ms, d.expected_cost_microusd) == ("a", Reason.WEIGHTED, 120, 30)
    assert (d.policy_id, d.policy_revision, d.decision_id) == ("default", 4, to_text(ID))
    assert (d.fallback_used, d.degraded, found.replayed, found.assignment_id) == (False, False, False, None)
    pushed = told(Admitted(0, Reason.WEIGHTED, b"\x01\x00", PinState.NONE, ID), push_assignment=True)
    assert isinstance(pushed, Decided)
    assert pushed.assignment_id == to_text(task_id(ID))


@pytest.mark.parametrize("reason", list(Reason))
def test_a_fallback_is_labelled(reason: Reason) -> None:
    """fallback_used is said of rules and breakers, not of retries, pins or weights."""
    found = told(Admitted(1, reason, b"\x02\x01", PinState.NONE, ID))
    assert isinstance(found, Decided)
    assert found.decision.fallback_used == (reason in (Reason.FALLBACK, Reason.CIRCUIT_BREAKER_FALLBACK))


def test_a_replay_tells_the_same_decision() -> None:
    """Every field of the remembered answer, marked as replayed."""
    kept = StoredAnswer(ID, "b", Reason.FALLBACK, "old", 2, 55, 66, True, True, False, "session", ("pins",))
    found = told(Replay(kept))
    assert isinstance(found, Decided)
    d = found.decision
    assert found.replayed
    assert (d.provider_id, d.reason, d.policy_id, d.policy_revision) == ("b", Reason.FALLBACK, "old", 2)
    assert (d.expected_latency_ms, d.expected_cost_microusd, d.sticky_key) == (55, 66, "session")
    assert (d.fallback_used, d.metadata, found.assignment_id) == (
        True,
        {"requires_cp": {"pins": "CP2-LC"}},
        to_text(task_id(ID)),
    )


_LIMITED = policy(*LIMITS)


@given(wait=some.integers(0, 10**9), request_id=some.text(min_size=1, max_size=20))
def test_jitter_is_positive_and_bounded(wait: int, request_id: str) -> None:
    """Never earlier than the true moment, at most a tenth (or 20 ms) later; the same request gets the same value."""
    wanted = DecideRequest("acme", request_id, "default", "chat", bytes(8))
    planned = plan(wanted, _LIMITED)
    found = answer(LimitHit(1, wait), wanted, planned, explain=False)
    assert isinstance(found, Refused)
    after = found.details["retry_after_ms"]
    assert isinstance(after, int)
    assert wait < after <= wait + max(MIN_JITTER_MS, wait // 10)
    assert answer(LimitHit(1, wait), wanted, planned, explain=False) == found


def test_callers_do_not_come_back_at_once() -> None:
    """A hundred requests that are refused together are sent back to many moments."""
    moments = set()
    for i in range(100):
        wanted = DecideRequest("acme", f"r{i}", "default", "chat", bytes(8))
        found = answer(LimitHit(1, 5_000), wanted, plan(wanted, policy(*LIMITS)), explain=False)
        assert isinstance(found, Refused)
        moments.add(found.details["retry_after_ms"])
    assert len(moments) > 50


def test_a_used_up_limit_is_named() -> None:
    """The limit's id, scope and resource, and when to come back."""
    found = refused(LimitHit(1, 1_000))
    assert found.code is Code.RATE_LIMIT_EXCEEDED
    assert {k: found.details[k] for k in ("limit_id", "scope", "resource")} == {
        "limit_id": "burst",
        "scope": "user",
        "resource": "tokens",
    }


def test_what_can_never_pass_is_a_quota() -> None:
    """No retry_after: coming back would not help."""
    found = refused(LimitHit(1, None))
    assert found.code is Code.QUOTA_EXCEEDED
    assert "retry_after_ms" not in found.details


def test_nobody_available_says_why() -> None:
    """Every candidate with its verdict, those out of constraint first, and the next moment if one is known."""
    found = refused(NoCandidate(b"\x02\x05", 700))
    assert found.code is Code.DECISION_FAILED
    assert found.details["candidates"] == [
        {"provider_id": "slow", "verdict": "constraint"},
        {"provider_id": "a", "verdict": "breaker_open"},
        {"provider_id": "b", "verdict": "provider_limit"},
    ]
    assert found.details["retry_after_ms"] > 700  # type: ignore[operator]
    assert "retry_after_ms" not in refused(NoCandidate(b"\x06\x06", None)).details


def test_a_conflict_names_the_field() -> None:
    """The key that was used before: the caller's key if it sent one, else the request id."""
    for more, field in (({}, "request_id"), ({"idempotency_key": "k"}, "idempotency_key")):
        found = refused(Conflict(), **more)
        assert found.code is Code.INVALID_REQUEST
        assert found.details == {"intake_error_code": "IDEMPOTENCY_VIOLATION", "field": field}


def test_other_refusals() -> None:
    """Switched off, a fault, away: each has its code; a fault tells nothing of its inside."""
    assert refused(TenantOff()).code is Code.UNAUTHORIZED
    fault = refused(RowFault("WRONGTYPE secret"))
    assert fault.code is Code.INTERNAL
    assert "secret" not in fault.message + str(fault.details)
    gone = refused(Unavailable(sent=False))
    assert gone.code is Code.UNAVAILABLE
    assert "outcome" not in gone.details


def test_an_unknown_outcome_is_said() -> None:
    """The row may have run: the caller is told so, with the id under which it may safely ask again."""
    found = refused(Unavailable(sent=True))
    assert found.code is Code.UNAVAILABLE
    assert (found.details["outcome"], found.details["request_id"]) == ("unknown", "r")


def test_overload_has_a_moment() -> None:
    """Too much in flight: come back a little later."""
    found = overloaded(Shed.FULL, "500")
    assert found.code is Code.SERVICE_OVERLOADED
    assert found.details["retry_after_ms"] > 0  # type: ignore[operator]


def test_explain_says_why() -> None:
    """Order and verdicts, pin and limits; only the shadow limit that would have refused is marked."""
    stored = policy(*LIMITS, sticky=Sticky())
    outcome = Admitted(1, Reason.STICKY, b"\x00\x01", PinState.HELD, ID, (0,), Observations(left=(0, 9)))
    found = told(outcome, explain=True, stored=stored, context={"session_id": "s"})
    assert isinstance(found, Decided)
    assert found.explain is not None
    assert found.explain["pin"] == "held"
    assert found.explain["idempotency"] == "fresh"
    assert [(x["limit_id"], x["mode"], x["would_refuse"]) for x in found.explain["limits"]] == [  # type: ignore[union-attr, index, call-overload]
        ("shade", "shadow", True),
        ("burst", "enforce", False),
    ]
    assert {v.value: v.label for v in Verdict}[1] == "chosen"
    assert told(outcome, stored=stored) == told(outcome, stored=stored, explain=False)


# Without the store

ALLOW, DENY = OnStoreError.ALLOW, OnStoreError.DENY


def without_store(*how: OnStoreError, default: OnStoreError = DENY, shadow: bool = False, **more: object) -> object:
    """The answer while the store is away, with a limit for each of `how`."""
    limits = [
        limit(
            f"l{i}",
            Scope.PROVIDER if i else Scope.TENANT,
            Resource.REQUESTS,
            1,
            60_000,
            on_store_error=x,
            shadow=shadow,
        )
        for i, x in enumerate(how)
    ]
    wanted = ask(**more)
    planned: Plan = plan(wanted, policy(*limits))
    return degraded(wanted, planned, NO_HEAD, default=default, decision_id=to_text(ID))


def away_with(*, drained: str = "", forced: str = "", off: bool = False) -> object:
    """The answer while the store is away, with what operators hold; providers by their letters."""
    entries = [frozenset(provider_entry(name) for name in names) for names in (drained, forced)]
    wanted = ask()
    planned = plan(wanted, policy())
    return degraded(
        wanted, planned, TenantHead("acme", 1, off, *entries), default=ALLOW, decision_id="id", explain=True
    )


@pytest.mark.parametrize(
    ("drained", "forced", "provider_id", "reason"),
    [
        ("b", "", "a", Reason.WEIGHTED),
        ("a", "", "b", Reason.WEIGHTED),
        ("", "a", "b", Reason.CIRCUIT_BREAKER_FALLBACK),
    ],
)
def test_a_degraded_decision_keeps_to_the_levers(drained: str, forced: str, provider_id: str, reason: Reason) -> None:
    """The first candidate that no operator holds, and why the others were passed over."""
    found = away_with(drained=drained, forced=forced)
    assert isinstance(found, Decided)
    assert (found.decision.provider_id, found.decision.reason) == (provider_id, reason)
    assert found.decision.fallback_used == (reason is Reason.CIRCUIT_BREAKER_FALLBACK)


def test_nobody_is_left_without_the_store() -> None:
    """All are held: unavailable; the tenant is off: it is refused as with a store."""
    held = away_with(drained="a", forced="b")
    assert isinstance(held, Refused)
    assert held.code is Code.UNAVAILABLE
    off = away_with(off=True)
    assert isinstance(off, Refused)
    assert off.code is Code.UNAUTHORIZED


@pytest.mark.parametrize(
    ("how", "default", "decided"),
    [
        ((), DENY, False),
        ((), ALLOW, True),
        ((ALLOW,), DENY, True),
        ((DENY,), ALLOW, False),
        ((ALLOW, DENY), ALLOW, False),
    ],
)
def test_every_limit_must_allow_a_degraded_decision(
    how: tuple[OnStoreError, ...], default: OnStoreError, decided: bool
) -> None:
    """One limit that denies is enough, a provider's too; without limits the setting decides."""
    found = without_store(*how, default=default)
    assert isinstance(found, Decided) == decided
    if isinstance(found, Decided):
        assert found.decision.degraded
        assert found.decision.decision_id == to_text(ID)


def test_a_limit_in_shadow_mode_denies_nothing() -> None:
    """It is not enforced, so its failure policy does not count."""
    assert isinstance(without_store(DENY, default=ALLOW, shadow=True), Decided)


def test_a_degraded_decision_is_never_dispatched() -> None:
    """A request that pushes an assignment is refused instead."""
    found = without_store(ALLOW, default=ALLOW, push_assignment=True)
    assert isinstance(found, Refused)
    assert found.code is Code.UNAVAILABLE
