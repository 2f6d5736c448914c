"""What the store said of a plan → what the caller is told."""

from typing import assert_never

from xxhash import xxh3_64_intdigest

from router.domain.decision import Answer, Code, Decided, Decision, Intake, PinState, Reason, Refused, Verdict
from router.domain.ids import task_id, to_text
from router.domain.json import JsonObject, JsonValue
from router.domain.outcome import (
    NOTHING_SEEN,
    Admitted,
    Away,
    Busy,
    Conflict,
    LimitHit,
    NoCandidate,
    Outcome,
    Remembered,
    Replay,
    RowFault,
    Seen,
    TenantOff,
)
from router.domain.plan import Plan
from router.domain.policy import Limit, OnStoreError
from router.domain.request import DecideRequest

JITTER_PART = 10
JITTER_LEAST_MS = 20
_FALLBACKS = (Reason.FALLBACK, Reason.CIRCUIT_BREAKER_FALLBACK)
_VERDICT_LABELS = {v.value: v.label for v in Verdict}


def answer(outcome: Outcome, request: DecideRequest, plan: Plan, *, explain: bool) -> Answer:
    """The answer to a request whose row has come back. `Away` is not for here: see `degraded`."""
    match outcome:
        case Admitted():
            return admitted(outcome, request, plan, explain=explain)
        case Replay(remembered):
            return replayed(remembered, explain=explain)
        case LimitHit(charge, wait, _):
            refused = _limited(plan.charges[charge].limit, wait, request)
            return _with_reasons(refused, outcome.seen, b"", plan) if explain else refused
        case NoCandidate():
            refused = _no_candidate(outcome, request, plan)
            return _with_reasons(refused, outcome.seen, outcome.verdicts, plan) if explain else refused
        case Conflict():
            key = "request_id" if request.idempotency_key is None else "idempotency_key"
            return Refused(
                Code.INVALID_REQUEST,
                f"{key} was used for another request within 24 hours: send a new one, or the same request",
                {"intake_error_code": Intake.IDEMPOTENCY_VIOLATION.value, "field": key},
            )
        case TenantOff():
            return Refused(
                Code.UNAUTHORIZED, "the tenant is switched off by an operator", {"tenant_id": request.tenant_id}
            )
        case Busy(left_ms):
            return Refused(
                Code.SERVICE_OVERLOADED,
                "the same request is being prepared: repeat it with the same id",
                {"retry_after_ms": _with_jitter(left_ms, request.request_id)},
            )
        case RowFault():
            return Refused(Code.INTERNAL, "the decision could not be made; the router's log has the fault")
        case Away(sent):
            return unavailable(request, sent=sent)
        case _:
            assert_never(outcome)


def admitted(outcome: Admitted, request: DecideRequest, plan: Plan, *, explain: bool) -> Decided:
    """A fresh decision."""
    chosen = plan.candidates[outcome.candidate]
    stored = plan.stored
    reason = outcome.reason
    decision = Decision(
        chosen.provider.name,
        reason,
        chosen.expected_latency_ms,
        chosen.expected_cost_microusd,
        stored.policy_id,
        stored.revision,
        to_text(outcome.decision_id),
        None if plan.pin is None else plan.pin.key,
        reason in _FALLBACKS,
        metadata={"requires_cp": list(plan.requires_cp)} if plan.requires_cp else {},
    )
    return Decided(
        decision,
        assignment_id=to_text(task_id(outcome.decision_id)) if request.push_assignment else None,
        explain=explained(outcome, plan) if explain else None,
    )


def replayed(kept: Remembered, *, explain: bool) -> Decided:
    """The very decision that was given before."""
    decision = Decision(
        kept.provider_id,
        kept.reason,
        kept.expected_latency_ms,
        kept.expected_cost_microusd,
        kept.policy_id,
        kept.policy_revision,
        to_text(kept.decision_id),
        kept.sticky_key,
        kept.fallback_used,
        metadata=kept.metadata | {"requires_cp": list(kept.requires_cp)} if kept.requires_cp else kept.metadata,
    )
    return Decided(
        decision,
        replayed=True,
        assignment_id=to_text(task_id(kept.decision_id)) if kept.pushed else None,
        explain={"idempotency": "replayed"} if explain else None,
    )


def degraded(request: DecideRequest, plan: Plan, *, default: OnStoreError, decision_id: str) -> Answer:
    """The answer while the store is away and the row was not sent: what the policy says, and labelled.

    Every enforcing limit must allow it; without one, `default` decides. A pushed task is never dispatched unrecorded.
    """
    enforcing = [
        c.limit for c in (*plan.charges, *(x for k in plan.candidates for x in k.charges)) if not c.limit.shadow
    ]
    allowed = (
        all(x.on_store_error is OnStoreError.ALLOW for x in enforcing) if enforcing else default is OnStoreError.ALLOW
    )
    if request.push_assignment or not allowed or not plan.candidates:
        return unavailable(request, sent=False)
    first = plan.candidates[0]
    return Decided(
        Decision(
            first.provider.name,
            first.reason,
            first.expected_latency_ms,
            first.expected_cost_microusd,
            plan.stored.policy_id,
            plan.stored.revision,
            decision_id,
            fallback_used=first.reason in _FALLBACKS,
            degraded=True,
        )
    )


def unavailable(request: DecideRequest, *, sent: bool) -> Refused:
    """The store did not answer. When the row was sent, nobody knows what came of it: the same id asks again safely."""
    details: JsonObject = {"retry_after_ms": _with_jitter(100, request.request_id)}
    if sent:
        details |= {"outcome": "unknown", "request_id": request.request_id}
        return Refused(
            Code.UNAVAILABLE, "the store did not answer in time; repeat the request with the same id", details
        )
    return Refused(Code.UNAVAILABLE, "the store is away", details)


def overloaded(in_flight: int) -> Refused:
    """Too much is in flight; said before the request is even decoded."""
    return Refused(
        Code.SERVICE_OVERLOADED,
        "too many requests are in flight: slow down",
        {"retry_after_ms": _with_jitter(100, str(in_flight))},
    )


def _with_jitter(wait_ms: int, seed: str) -> int:
    """Longer, never shorter, and another value for every request: callers must not all come back at once."""
    span = max(JITTER_LEAST_MS, wait_ms // JITTER_PART)
    return wait_ms + 1 + xxh3_64_intdigest(seed.encode()) % span


def _limited(limit: Limit, wait: int | None, request: DecideRequest) -> Refused:
    details: JsonObject = {"limit_id": limit.id, "scope": limit.scope.value, "resource": limit.resource.value}
    if wait is None:
        return Refused(
            Code.QUOTA_EXCEEDED, f"limit {limit.id} can never admit this much: its whole size is less", details
        )
    details["retry_after_ms"] = _with_jitter(wait, request.request_id)
    return Refused(Code.RATE_LIMIT_EXCEEDED, f"limit {limit.id} ({limit.scope}, {limit.resource}) is used up", details)


def _verdicts(verdicts: bytes, plan: Plan, seen: Seen = NOTHING_SEEN) -> list[JsonValue]:
    walked: list[JsonValue] = []
    for i, (c, v) in enumerate(zip(plan.candidates, verdicts, strict=False)):
        line: JsonObject = {"provider_id": c.provider.name, "verdict": _VERDICT_LABELS.get(v, "unknown")}
        if i < len(seen.waits) and seen.waits[i] is not None:
            line["fit_in_ms"] = seen.waits[i]
        walked.append(line)
    passed: list[JsonValue] = [{"provider_id": p.provider_id, "verdict": p.verdict.label} for p in plan.passed_over]
    return passed + walked


def _no_candidate(outcome: NoCandidate, request: DecideRequest, plan: Plan) -> Refused:
    details: JsonObject = {"candidates": _verdicts(outcome.verdicts, plan)}
    if outcome.retry_after_ms is not None:
        details["retry_after_ms"] = _with_jitter(outcome.retry_after_ms, request.request_id)
    return Refused(Code.DECISION_FAILED, "no provider is available; details.candidates says why", details)


def explained(outcome: Admitted, plan: Plan) -> JsonObject:
    """Why this provider: policy, order, verdicts, pin and limits."""
    why = _reasons(outcome.seen, outcome.verdicts, plan)
    why["pin"] = PinState(outcome.pin).name.lower()
    if outcome.seen.left_pin is not None:
        known = {c.provider.entry: c.provider.name for c in plan.candidates}
        why["pinned_to"] = known.get(outcome.seen.left_pin, "a provider that is no candidate any more")
    for i in outcome.shadow:
        if i < len(plan.charges):
            why["limits"][i]["would_refuse"] = True  # type: ignore[index, call-overload]
    return why | {"idempotency": "fresh"}


def _reasons(seen: Seen, verdicts: bytes, plan: Plan) -> JsonObject:
    limits: list[JsonValue] = []
    for i, c in enumerate(plan.charges):
        line: JsonObject = {
            "limit_id": c.limit.id,
            "scope": c.limit.scope.value,
            "resource": c.limit.resource.value,
            "units": c.units,
            "limit": c.limit.limit,
            "window_ms": c.limit.window_ms,
            "mode": "shadow" if c.limit.shadow else "enforce",
            "would_refuse": False,
        }
        if i < len(seen.left):
            line["left_before"] = seen.left[i]
        limits.append(line)
    return {
        "policy_id": plan.stored.policy_id,
        "policy_revision": plan.stored.revision,
        "policy_hash": plan.stored.hash,
        "candidates": _verdicts(verdicts, plan, seen),
        "limits": limits,
        "figures_version": plan.figures_version,
    }


def _with_reasons(refused: Refused, seen: Seen, verdicts: bytes, plan: Plan) -> Refused:
    return Refused(refused.code, refused.message, refused.details | {"explain": _reasons(seen, verdicts, plan)})
