"""The explanation of an answer: the plan, and what the row observed. Every kind of answer has the same shape."""

from collections.abc import Sequence

from router.domain.decide.decision import PinState, Verdict
from router.domain.decide.outcome import NOTHING_OBSERVED, Observations, StoredAnswer
from router.domain.decide.plan import Plan
from router.domain.decide.request import NO_CONSTRAINTS, DecideRequest
from router.domain.json import JsonObject, JsonValue

_MICROUSD = 1_000_000
_VERDICT_LABELS = {v.value: v.label for v in Verdict}
_NOT_REACHED = Verdict.NOT_REACHED.label


def explanation(
    request: DecideRequest,
    plan: Plan,
    *,
    idempotency: str = "fresh",
    verdicts: bytes = b"",
    seen: Observations = NOTHING_OBSERVED,
    pin: PinState = PinState.NONE,
    degraded: bool = False,
) -> JsonObject:
    """Explain an answer: policy, candidates in order, limits, pin and idempotency.

    `idempotency`: fresh, conflict, or unknown (the store was unavailable). Costs of candidates are in USD, as in a
    decision. Limits are in their own unit, which for cost is micro-USD.
    """
    fields: JsonObject = {
        "policy_id": plan.stored.policy_id,
        "policy_revision": plan.stored.revision,
        "policy_hash": plan.stored.hash,
        "candidates": _candidates(plan, verdicts, seen),
        "limits": _limits(plan, seen),
        "pin": pin.name.lower(),
        "idempotency": idempotency,
        "figures_version": plan.figures_version,
        "degraded": degraded,
    }
    if pin is PinState.LEFT:
        policy = plan.stored.policy
        names_by_entry = {p.entry: p.name for p in (*policy.providers, *policy.fallback_providers)}
        pinned_to = fields["pinned_to"] = names_by_entry.get(seen.left_pin or b"")
        fields["pin_cause"] = pin_cause([c.provider.name for c in plan.candidates], pinned_to, verdicts, seen)
    if request.constraints is not NO_CONSTRAINTS:
        bounds = request.constraints
        fields["constraints"] = {"max_latency_ms": bounds.max_latency_ms, "max_cost": _usd(bounds.max_cost_microusd)}
    return fields


def pin_cause(providers: Sequence[str], pinned_to: str | None, verdicts: bytes, seen: Observations) -> str:
    """Why the row left the pin: `failed` (the caller reported it), the verdict on its provider, or `not_a_candidate`.

    `providers`: the candidates in order, as `verdicts` has them.
    """
    if seen.pin_failed:
        return "failed"
    by_name = dict(zip(providers, verdicts, strict=False))
    return _VERDICT_LABELS.get(by_name.get(pinned_to or "", -1), "not_a_candidate")


def replay_explanation(remembered: StoredAnswer) -> JsonObject:
    """Explain a replay. It is not decided again; the audit log explains the original decision."""
    return {
        "policy_id": remembered.policy_id,
        "policy_revision": remembered.policy_revision,
        "idempotency": "replayed",
        "degraded": False,
    }


def verdict_lines(plan: Plan, verdicts: bytes) -> list[JsonValue]:
    """List the providers that constraints excluded, then the candidates that the walk reached, with their verdicts."""
    excluded = [(p.provider_id, p.verdict.label) for p in plan.passed_over]
    walked = [
        (c.provider.name, _VERDICT_LABELS.get(v, "unknown")) for c, v in zip(plan.candidates, verdicts, strict=False)
    ]
    return [{"provider_id": name, "verdict": verdict} for name, verdict in excluded + walked]


def _candidates(plan: Plan, verdicts: bytes, seen: Observations) -> list[JsonValue]:
    lines: list[JsonValue] = [
        {
            "provider_id": p.provider_id,
            "verdict": p.verdict.label,
            "expected_latency_ms": p.expected_latency_ms,
            "expected_cost": _usd(p.expected_cost_microusd),
        }
        for p in plan.passed_over
    ]
    for i, c in enumerate(plan.candidates):
        line: JsonObject = {
            "provider_id": c.provider.name,
            "by": c.reason.label,
            "verdict": _VERDICT_LABELS.get(verdicts[i], "unknown") if i < len(verdicts) else _NOT_REACHED,
            "expected_latency_ms": c.expected_latency_ms,
            "expected_cost": _usd(c.expected_cost_microusd),
        }
        if i < len(seen.waits) and seen.waits[i] is not None:
            line["fit_in_ms"] = seen.waits[i]
        if units_left := seen.own_left.get(i):
            limits = ((c.charges[n].limit.id, left) for n, left in units_left.items())
            line["limits"] = [{"limit_id": limit_id, "left_before": left} for limit_id, left in limits]
        lines.append(line)
    return lines


def _limits(plan: Plan, seen: Observations) -> list[JsonValue]:
    lines: list[JsonValue] = []
    for i, c in enumerate(plan.charges):
        left = seen.left[i] if i < len(seen.left) else None
        lines.append(
            {
                "limit_id": c.limit.id,
                "scope": c.limit.scope.value,
                "resource": c.limit.resource.value,
                "mode": "shadow" if c.limit.shadow else "enforce",
                "limit": c.limit.limit,
                "window_ms": c.limit.window_ms,
                "units": c.units,
                "left_before": left,
                "would_refuse": left is not None and left < c.units,
            }
        )
    return lines


def _usd(microusd: int | None) -> float | None:
    return None if microusd is None else microusd / _MICROUSD
