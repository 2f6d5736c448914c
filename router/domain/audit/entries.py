"""Builds audit entries from record features and outcomes. Queries, exports and log lines all use it, so they agree."""

from router.domain.audit.records import ActFeatures, AuditEntry, DecisionFeatures, PolicyFrame, TaskFeatures
from router.domain.decide.candidates import Offer
from router.domain.decide.decision import PinState, Reason, Verdict
from router.domain.decide.explain import pin_cause
from router.domain.decide.outcome import NOTHING_OBSERVED, Observations
from router.domain.extensions.pipeline import AUDIT_CODES
from router.domain.ids import to_text
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import provider_entry
from router.domain.tasks.result import AckStatus, ResultStatus
from router.domain.tasks.task import Action

CONFLICT, LIMITED, NO_CANDIDATE, TENANT_OFF, AUDIT_QUOTA = 2, 3, 4, 6, 9
_REFUSALS = {
    CONFLICT: "conflict",
    LIMITED: "limited",
    NO_CANDIDATE: "no_candidate",
    TENANT_OFF: "tenant_off",
    AUDIT_QUOTA: "audit_quota",
    **{number: code.value for code, number in AUDIT_CODES.items()},
}
OUTCOMES = tuple(
    dict.fromkeys(("decided", "degraded", *_REFUSALS.values(), *(s.value for s in (*ResultStatus, *AckStatus))))
)
"""The values of `AuditEntry.outcome`: those of decisions, refusals, results and acks."""
DECISIONS = frozenset(
    (Action.DECISION_MADE, Action.DECISION_REFUSED, Action.DECISION_CONFLICT, Action.DECISION_DEGRADED)
)
ADMIN_ACTIONS = frozenset(
    (
        Action.BREAKER_FORCED,
        Action.POLICY_APPLIED,
        Action.POLICY_DELETED,
        Action.POLICY_ROLLED_BACK,
        Action.PROVIDER_DRAINED,
        Action.PROVIDER_ENABLED,
        Action.TENANT_DISABLED,
        Action.TENANT_ENABLED,
        Action.TENANT_PURGED,
        Action.GATE_CHANGED,
        Action.ROLE_USED,
    )
)


def decision_entry(
    entry_id: str,
    ts_us: int,
    tenant_id: str,
    action: Action,
    f: DecisionFeatures,
    *,
    decision_id: bytes,
    code: int,
    index: int,
    third: int,
    verdicts: bytes,
    seen: Observations = NOTHING_OBSERVED,
    offer: Offer | None = None,
) -> AuditEntry:
    """Build the entry of a decision or a refusal.

    For a decision, `code` is the reason, `index` the candidate, `third` the pin state, and `offer` the chosen provider
    with its figures. For a refusal, `code` is the script's, `index` the limit, and `third` the wait in ms (−1:
    unknown).
    """
    details: JsonObject = {
        "request_id": f.request_id,
        "policy_id": f.frame.policy_id,
        "policy_revision": f.frame.policy_revision,
        "policy_hash": f.frame.policy_hash,
        "task_type": f.task_type,
    }
    match action:
        case Action.DECISION_MADE:
            outcome = "decided"
            details |= _chosen(f=f, decision_id=decision_id, reason=code, index=index, offer=offer) | {
                "degraded": False,
                "pin": PinState(third).name.lower(),
            }
        case Action.DECISION_DEGRADED:
            outcome = "degraded"
            details |= _chosen(f=f, decision_id=decision_id, reason=code, index=index, offer=offer) | {"degraded": True}
        case Action.DECISION_REFUSED | Action.DECISION_CONFLICT:
            outcome = _REFUSALS.get(code, str(code))
            details |= {"refusal": outcome} | _refusal(f, code, index=index, wait_ms=third)
        case _:
            raise AssertionError(f"{action.label} is no decision")
    details |= _observations(f, verdicts, seen)
    details["idempotency"] = "conflict" if action is Action.DECISION_CONFLICT else "fresh"
    if f.frame.more:
        details["candidates_not_named"] = f.frame.more
    if f.frame.script:
        details["script"] = f.frame.script
    if f.figures_version:
        details["figures_version"] = f.figures_version
    return AuditEntry(
        id=entry_id,
        ts_us=ts_us,
        tenant_id=tenant_id,
        action=action.label,
        resource_type="request",
        resource_id=f.request_id,
        user_id=f.user_id,
        ip_address=f.ip_address,
        trace_id=f.trace_id,
        details=details,
        outcome=outcome,
    )


def _chosen(f: DecisionFeatures, decision_id: bytes, reason: int, index: int, offer: Offer | None) -> JsonObject:
    """The details of a decision: the chosen provider, and why."""
    details: JsonObject = {
        "decision_id": to_text(decision_id),
        "provider_id": f.frame.providers[index] if offer is None else offer.provider_id,
        "reason": Reason(reason).label,
    }
    if offer is not None:
        details["expected_latency_ms"] = offer.expected_latency_ms
        details["expected_cost_microusd"] = offer.expected_cost_microusd
    return details


def _observations(f: DecisionFeatures, verdicts: bytes, seen: Observations) -> JsonObject:
    """The verdicts on candidates, the units that limits had left, and an abandoned pin; only the parts that exist."""
    details: JsonObject = {}
    if verdicts or f.constrained:
        excluded: list[JsonValue] = [{"provider_id": p, "verdict": Verdict.CONSTRAINT.label} for p in f.constrained]
        details["candidates"] = excluded + _candidates(f.frame, verdicts, seen)
    if seen.left:
        names = zip(f.frame.limits, seen.left, strict=True)
        details["limits"] = [{"limit_id": name, "left_before": left} for name, left in names]
    if seen.left_pin is not None:
        names_by_entry = {provider_entry(name): name for name in f.frame.providers}
        pinned_to = names_by_entry.get(seen.left_pin)
        details["pinned_to"] = seen.left_pin.hex() if pinned_to is None else pinned_to
        details["pin_cause"] = pin_cause(f.frame.providers, pinned_to, verdicts, seen)
    return details


def _refusal(f: DecisionFeatures, code: int, *, index: int, wait_ms: int) -> JsonObject:
    """The details of a refusal: the limit, or the number of refusals that the record stands for; and the wait."""
    details: JsonObject = {}
    if code == LIMITED:
        details["limit_id"] = f.frame.limits[index]
    elif code == AUDIT_QUOTA:
        details["times"] = f.times
    if wait_ms >= 0:
        details["retry_after_ms"] = wait_ms
    return details


def _candidates(frame: PolicyFrame, verdicts: bytes, seen: Observations) -> list[JsonValue]:
    candidates: list[JsonValue] = []
    for i, (name, verdict) in enumerate(zip(frame.providers, verdicts, strict=False)):
        line: JsonObject = {"provider_id": name, "verdict": Verdict(verdict).label}
        if i < len(seen.waits) and seen.waits[i] is not None:
            line["fit_in_ms"] = seen.waits[i]
        if units_left := seen.own_left.get(i):
            limits = ((frame.provider_limits[n], left) for n, left in units_left.items())
            line["limits"] = [{"limit_id": limit_id, "left_before": left} for limit_id, left in limits]
        candidates.append(line)
    return candidates


def task_entry(
    entry_id: str, ts_us: int, tenant_id: str, action: Action, f: TaskFeatures, *, decision_id: bytes, attempt: int
) -> AuditEntry:
    """Build the entry of a task's step, or of a change of a breaker's state. `attempt` 0: none."""
    details: JsonObject = {
        "request_id": f.request_id,
        "decision_id": to_text(decision_id),
        "policy_id": f.policy_id,
        "policy_revision": f.policy_revision,
        "provider_id": f.provider_id,
    }
    if attempt:
        details["attempt"] = attempt
    optional: tuple[tuple[str, JsonValue], ...] = (
        ("status", f.status),
        ("error_code", f.error_code),
        ("latency_ms", f.latency_ms),
        ("cost_microusd", f.cost_microusd),
        ("tokens", f.tokens),
        ("note", f.note),
    )
    details |= {name: value for name, value in optional if value is not None}
    is_breaker = action.label.startswith("breaker.")
    return AuditEntry(
        id=entry_id,
        ts_us=ts_us,
        tenant_id=tenant_id,
        action=action.label,
        resource_type="provider" if is_breaker else "assignment",
        resource_id=f.provider_id if is_breaker else f.assignment_id,
        user_id=f.user_id,
        ip_address=f.ip_address,
        trace_id=f.trace_id,
        details=details,
        outcome=f.status,
    )


def half_opened_entry(
    entry_id: str, ts_us: int, tenant_id: str, f: DecisionFeatures, provider: bytes, decision_id: bytes | None
) -> AuditEntry:
    """Build the entry of a breaker that went half-open and admitted a probe. `provider` is the provider's entry."""
    names = {provider_entry(name): name for name in f.frame.providers}
    details: JsonObject = {
        "request_id": f.request_id,
        "policy_id": f.frame.policy_id,
        "policy_revision": f.frame.policy_revision,
    }
    if decision_id is not None:
        details["decision_id"] = to_text(decision_id)
    return AuditEntry(
        id=entry_id,
        ts_us=ts_us,
        tenant_id=tenant_id,
        action=Action.BREAKER_HALF_OPENED.label,
        resource_type="provider",
        resource_id=names.get(provider),
        user_id=f.user_id,
        ip_address=None,
        trace_id=f.trace_id,
        details=details,
    )


def act_entry(
    entry_id: str, ts_us: int, tenant_id: str, action: Action, f: ActFeatures, *, revision: int, before: int
) -> AuditEntry:
    """Build the entry of an admin act.

    `revision` 0: the act wrote no policy. `before` 0: the policy did not exist before.
    """
    details: JsonObject = {}
    if revision:
        details["policy_revision"] = revision
    if before:
        details["policy_revision_before"] = before
    if f.role is not None:
        details["role"] = f.role
    return AuditEntry(
        id=entry_id,
        ts_us=ts_us,
        tenant_id=tenant_id,
        action=action.label,
        resource_type=f.resource_type,
        resource_id=f.resource_id,
        user_id=f.principal,
        ip_address=None,
        trace_id=f.trace_id,
        details={**details, **f.details},
    )
