"""Turns the outcome of a decide row into the answer for the caller."""

from collections.abc import Mapping
from typing import assert_never

from xxhash import xxh3_64_intdigest

from router.domain.decide.admission import Shed
from router.domain.decide.decision import Answer, Code, Decided, Decision, Intake, Reason, Refused, Verdict
from router.domain.decide.explain import explanation, replay_explanation, verdict_lines
from router.domain.decide.outcome import (
    Admitted,
    Busy,
    Conflict,
    LimitHit,
    NoCandidate,
    Outcome,
    Replay,
    RowFault,
    StoredAnswer,
    TenantOff,
    Unavailable,
)
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.gate import REQUIRED_CP
from router.domain.ids import task_id, to_text
from router.domain.json import JsonObject
from router.domain.levers import TenantHead
from router.domain.policy.model import AUDIT_QUOTA_ID, QUOTA_ID, Limit
from router.domain.policy.vocabulary import OnStoreError

JITTER_PART = 10
MIN_JITTER_MS = 20
FALLBACK_REASONS = (Reason.FALLBACK, Reason.CIRCUIT_BREAKER_FALLBACK)


def answer(outcome: Outcome, request: DecideRequest, plan: Plan, *, explain: bool) -> Answer:
    """Build the answer from a row's outcome. A row that was not sent may be answered by `degraded` instead."""
    match outcome:
        case Admitted():
            return admitted(outcome, request, plan, explain=explain)
        case Replay(remembered):
            return replayed(remembered, explain=explain)
        case LimitHit(charge, wait, seen, _):
            refused = _limited(plan.charges[charge].limit, wait, request)
            return _explained(refused, explanation(request, plan, seen=seen)) if explain else refused
        case NoCandidate(verdicts, _, seen):
            refused = _no_candidate(outcome, request, plan)
            return _explained(refused, explanation(request, plan, verdicts=verdicts, seen=seen)) if explain else refused
        case Conflict():
            refused = _conflict(request)
            return _explained(refused, explanation(request, plan, idempotency="conflict")) if explain else refused
        case TenantOff():
            refused = Refused(
                Code.UNAUTHORIZED, "the tenant is switched off by an operator", {"tenant_id": request.tenant_id}
            )
            return _explained(refused, explanation(request, plan)) if explain else refused
        case Busy(left_ms):
            return Refused(
                Code.SERVICE_OVERLOADED,
                "another pod is working on the same request: repeat it later with the same id",
                {"retry_after_ms": _with_jitter(left_ms, request.request_id)},
            )
        case RowFault():
            return Refused(Code.INTERNAL, "the decision failed: see the router's log for the cause")
        case Unavailable(sent):
            return unavailable(request, sent=sent)
        case _:
            assert_never(outcome)


def admitted(outcome: Admitted, request: DecideRequest, plan: Plan, *, explain: bool) -> Decided:
    """Build the answer of a new decision."""
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
        reason in FALLBACK_REASONS,
        metadata=_gated(plan.requires_cp) if plan.requires_cp else {},
    )
    return Decided(
        decision,
        assignment_id=to_text(task_id(outcome.decision_id)) if request.push_assignment else None,
        explain=explanation(request, plan, verdicts=outcome.verdicts, seen=outcome.seen, pin=outcome.pin)
        if explain
        else None,
    )


def _gated(features: tuple[str, ...]) -> JsonObject:
    """The metadata that names the features which the gate withheld, and the checkpoint that each needs."""
    return {"requires_cp": dict.fromkeys(features, REQUIRED_CP)}


def replayed(remembered: StoredAnswer, *, explain: bool) -> Decided:
    """Build the answer of a replay: the decision that was made before."""
    decision = Decision(
        remembered.provider_id,
        remembered.reason,
        remembered.expected_latency_ms,
        remembered.expected_cost_microusd,
        remembered.policy_id,
        remembered.policy_revision,
        to_text(remembered.decision_id),
        remembered.sticky_key,
        remembered.fallback_used,
        metadata=remembered.metadata | _gated(remembered.requires_cp)
        if remembered.requires_cp
        else remembered.metadata,
    )
    return Decided(
        decision,
        replayed=True,
        assignment_id=to_text(task_id(remembered.decision_id)) if remembered.pushed else None,
        explain=replay_explanation(remembered) if explain else None,
    )


def degraded(
    request: DecideRequest,
    plan: Plan,
    head: TenantHead,
    *,
    default: OnStoreError,
    decision_id: str,
    explain: bool = False,
) -> Answer:
    """Build the answer while the store is unavailable and the row was not sent. A decision is marked as degraded.

    Every enforcing limit must have `on_store_error: allow`; without such limits, `default` applies. A request with
    `push_assignment` is refused, because a task is never dispatched without a record. `head`: the tenant's switch and
    levers as last loaded; providers that an operator drained or forced open are skipped.
    """
    if head.off:
        return answer(TenantOff(), request, plan, explain=explain)
    enforcing = [
        c.limit for c in (*plan.charges, *(x for k in plan.candidates for x in k.charges)) if not c.limit.shadow
    ]
    allowed = (
        all(x.on_store_error is OnStoreError.ALLOW for x in enforcing) if enforcing else default is OnStoreError.ALLOW
    )
    verdicts = _verdicts_of_levers(plan, head)
    if request.push_assignment or not allowed or len(verdicts) == len(plan.candidates):
        return unavailable(request, sent=False)
    chosen = plan.candidates[len(verdicts)]
    reason = Reason.CIRCUIT_BREAKER_FALLBACK if Verdict.FORCED_OPEN in verdicts else chosen.reason
    verdicts += bytes((Verdict.CHOSEN,))
    return Decided(
        Decision(
            chosen.provider.name,
            reason,
            chosen.expected_latency_ms,
            chosen.expected_cost_microusd,
            plan.stored.policy_id,
            plan.stored.revision,
            decision_id,
            fallback_used=reason in FALLBACK_REASONS,
            degraded=True,
        ),
        explain=explanation(request, plan, idempotency="unknown", verdicts=verdicts, degraded=True)
        if explain
        else None,
    )


def _verdicts_of_levers(plan: Plan, head: TenantHead) -> bytes:
    """The verdicts on the candidates before the first one that no operator has drained or forced open."""
    verdicts = bytearray()
    for candidate in plan.candidates:
        entry = candidate.provider.entry
        if entry not in head.drained | head.forced:
            break
        verdicts.append(Verdict.DRAINED if entry in head.drained else Verdict.FORCED_OPEN)
    return bytes(verdicts)


def unavailable(request: DecideRequest, *, sent: bool) -> Refused:
    """Build the refusal when the store did not answer.

    A row that was sent may have been executed; a repeat with the same id is safe.
    """
    details: JsonObject = {"retry_after_ms": _with_jitter(100, request.request_id)}
    if sent:
        details |= {"outcome": "unknown", "request_id": request.request_id}
        return Refused(
            Code.UNAVAILABLE, "the store did not answer in time; repeat the request with the same id", details
        )
    return Refused(Code.UNAVAILABLE, "the store is unavailable: repeat the request later", details)


_OVERLOADED: Mapping[Shed, str] = {
    Shed.FULL: "too many requests are in flight: send fewer at a time",
    Shed.TENANT: "the tenant has its share of this pod's requests in flight: send fewer at a time",
    Shed.LOADING: "too many requests wait for the policies of their tenants: repeat the request later",
    Shed.STALE: "the pod stood still while the request waited: repeat it with the same id",
}


def overloaded(cause: Shed, seed: str) -> Refused:
    """Build the refusal of a request for overload. `seed` makes the jitter of `retry_after_ms`."""
    return Refused(Code.SERVICE_OVERLOADED, _OVERLOADED[cause], {"retry_after_ms": _with_jitter(100, seed)})


def _with_jitter(wait_ms: int, seed: str) -> int:
    """Lengthen a delay by a part that differs between requests, so that callers do not all return at once.

    The result is never shorter than `wait_ms`.
    """
    span = max(MIN_JITTER_MS, wait_ms // JITTER_PART)
    return wait_ms + 1 + xxh3_64_intdigest(seed.encode()) % span


def _conflict(request: DecideRequest) -> Refused:
    key = "request_id" if request.idempotency_key is None else "idempotency_key"
    return Refused(
        Code.INVALID_REQUEST,
        f"{key} was used for another request within 24 hours: send a new one, or the same request",
        {"intake_error_code": Intake.IDEMPOTENCY_VIOLATION.value, "field": key},
    )


def _limited(limit: Limit, wait: int | None, request: DecideRequest) -> Refused:
    details: JsonObject = {"limit_id": limit.id, "scope": limit.scope.value, "resource": limit.resource.value}
    if wait is None:
        return Refused(
            Code.QUOTA_EXCEEDED,
            f"limit {limit.id} can never admit this request: the request needs more than the limit allows",
            details,
        )
    details["retry_after_ms"] = _with_jitter(wait, request.request_id)
    if limit.id == QUOTA_ID:
        return Refused(Code.QUOTA_EXCEEDED, "the tenant has used up its quota of decisions in 24 hours", details)
    if limit.id == AUDIT_QUOTA_ID:
        return Refused(Code.QUOTA_EXCEEDED, "the tenant has used up its quota of audit records", details)
    return Refused(Code.RATE_LIMIT_EXCEEDED, f"limit {limit.id} ({limit.scope}, {limit.resource}) is used up", details)


def _no_candidate(outcome: NoCandidate, request: DecideRequest, plan: Plan) -> Refused:
    details: JsonObject = {"candidates": verdict_lines(plan, outcome.verdicts)}
    if outcome.retry_after_ms is not None:
        details["retry_after_ms"] = _with_jitter(outcome.retry_after_ms, request.request_id)
    return Refused(Code.DECISION_FAILED, "no provider is available: details.candidates has the reasons", details)


def _explained(refused: Refused, explain: JsonObject) -> Refused:
    return Refused(refused.code, refused.message, refused.details | {"explain": explain})
