"""The replies of admin acts: what the use cases return → JSON fields."""

from collections.abc import Mapping

from router.domain.decide.decision import Code, Refused
from router.domain.extensions.pipeline import worst_latency_ms
from router.domain.json import JsonObject, JsonValue
from router.domain.levers import BreakerView
from router.domain.policy.model import Policy
from router.errors import InvalidInput, QuotaExceeded, RevisionConflict
from router.ports.tenants import Purged, TenantContents
from router.usecases.admin.overrides import TenantProviders
from router.usecases.admin.purge import EXCLUDED
from router.usecases.policies.publish import Published
from router.wire.problems import Problems

_LIMITS: JsonObject = {"max_total": 10, "max_pre": 5, "max_validators": 5, "max_post": 5}
_MEDIUM, _HIGH = 4, 8


def refused_input(fault: InvalidInput | RevisionConflict | QuotaExceeded) -> Refused:
    """The refusal of an act that failed, as the caller gets it."""
    if isinstance(fault, RevisionConflict):
        return Refused(Code.INVALID_REQUEST, str(fault), {"current_revision": fault.current})
    if isinstance(fault, QuotaExceeded):
        return Refused(Code.QUOTA_EXCEEDED, str(fault))
    problems = Problems()
    for problem in fault.problems:
        problems.add(problem.path, message=problem.message, hint=problem.hint)
    return problems.rejected(request_id=None, trace_id=None).refused


def breaker_facts(view: BreakerView) -> JsonObject:
    """A breaker; times are Redis ms, null for never."""
    return {
        "state": view.state.value,
        "opened_at_ms": view.opened_at_ms or None,
        "reason": view.why,
        "next_probe_at_ms": view.next_probe_at_ms or None,
    }


def named_breaker_facts(view: BreakerView, names: Mapping[bytes, str]) -> JsonObject:
    """A breaker with its tenant and provider; the store's entry stands for a provider that `names` lacks."""
    return {
        "tenant_id": view.tenant_id,
        "provider_id": names.get(view.provider_entry, view.provider_entry.hex()),
        **breaker_facts(view),
    }


def provider_facts(tenant: TenantProviders) -> JsonObject:
    """A tenant's switch and providers."""
    providers: list[JsonValue] = [
        {
            "provider_id": p.name,
            "policies": list(p.policies),
            "drained": p.drained,
            "breaker": None if p.breaker is None else breaker_facts(p.breaker),
        }
        for p in tenant.providers
    ]
    return {"tenant_id": tenant.tenant_id, "disabled": tenant.off, "providers": providers}


def published_facts(published: Published) -> JsonObject:
    """The result of a policy write, or what it would be."""
    return {
        "policy_id": published.policy_id,
        "revision": published.revision,
        "hash": published.hash,
        "changed": published.changed,
        "dry_run": published.dry_run,
        "changes": [str(c) for c in published.changes],
        "warnings": [str(w) for w in published.warnings],
    }


def contents_facts(contents: TenantContents) -> JsonObject:
    """A tenant's keys and open tasks."""
    kinds: list[JsonValue] = [{"kind": k.kind, "keys": k.keys, "size_bytes": k.size_bytes} for k in contents.kinds]
    return {
        "keys": kinds,
        "audit_entries": contents.audit_entries,
        "open_tasks": dict(contents.open_tasks),
        "whole": contents.whole,
    }


def purged_facts(tenant_id: str, purged: Purged, *, dry_run: bool) -> JsonObject:
    """The keys that a purge removed, or would remove."""
    return {
        "tenant_id": tenant_id,
        "dry_run": dry_run,
        "keys": purged.total,
        "kinds": dict(purged.kinds),
        "answers_may_remain": purged.answers_may_remain,
        "excluded": EXCLUDED,
    }


def complexity_facts(policy: Policy) -> JsonObject:
    """Score: one per step, plus one per step that may refuse the request. Latency: every first call times out."""
    steps = (*policy.pre, *policy.validators, *policy.post)
    blocking = sum(1 for e in policy.pre if e.required) + sum(1 for e in policy.validators if e.on_fail == "block")
    score = len(steps) + blocking
    level = "high" if score >= _HIGH else "medium" if score >= _MEDIUM else "low"
    warnings: list[JsonValue] = []
    if level == "high":
        warnings.append("each step adds its time to the answer")
    recommendations: list[JsonValue] = ["merge steps, or make some optional"] if level == "high" else []
    return {
        "total_extensions": len(steps),
        "pre_count": len(policy.pre),
        "validators_count": len(policy.validators),
        "post_count": len(policy.post),
        "complexity_score": score,
        "complexity_level": level,
        "estimated_latency_ms": worst_latency_ms(policy),
        "recommended_limits": _LIMITS,
        "warnings": warnings,
        "recommendations": recommendations,
    }
