"""Views of extensions for admin replies."""

from collections.abc import Sequence

from router.domain.decide.request import DecideRequest
from router.domain.extensions.health import ExtensionRecord, percentile_ms, status, success_rate
from router.domain.extensions.pipeline import ExtensionName, wanted_of
from router.domain.json import JsonObject, JsonValue
from router.domain.levers import BreakerState
from router.domain.policy.model import Policy


def extension_health(records: Sequence[ExtensionRecord]) -> JsonObject:
    """Show the health of each extension by id; an id that several stages use becomes `<stage>.<id>`."""
    ids = [r.name.id for r in records]
    return {r.name.id if ids.count(r.name.id) == 1 else r.name.text: _health(r) for r in records}


def _health(r: ExtensionRecord) -> JsonObject:
    return {
        "extension_id": r.name.id,
        "stage": r.name.stage.value,
        "status": status(r).value,
        "success_count": r.good,
        "failure_count": r.bad,
        "success_rate": round(success_rate(r), ndigits=4),
        "avg_latency_ms": round(r.took_ms / max(1, r.good + r.bad), ndigits=1),
        "p50_latency_ms": percentile_ms(r, 0.50),
        "p95_latency_ms": percentile_ms(r, 0.95),
        "p99_latency_ms": percentile_ms(r, 0.99),
        "circuit_breaker_state": r.state.value,
        "last_success": r.last_good_ms or None,
        "last_failure": r.last_bad_ms or None,
        "updated_at": r.updated_ms,
    }


def extension_state(r: ExtensionRecord) -> JsonObject:
    """Show the breaker of an extension; it has no tenant, since the whole fleet shares extensions."""
    reason = f"{r.in_a_row} failures in a row" if r.in_a_row else "error rate"
    return {
        "tenant_id": None,
        "extension_id": r.name.id,
        "stage": r.name.stage.value,
        "state": r.state.value,
        "opened_at_ms": r.opened_at_ms or None,
        "reason": None if r.state is BreakerState.CLOSED else reason,
        "next_probe_at_ms": r.open_until_ms or None,
    }


def planned_extensions(policy: Policy, request: DecideRequest, records: Sequence[ExtensionRecord]) -> list[JsonValue]:
    """List the extensions that a request would call, in order, with their status; null: not called for a day."""
    status_of = {r.name: status(r).value for r in records}
    return [
        {"extension_id": e.id, "stage": stage.value, "status": status_of.get(ExtensionName(stage, e.id))}
        for stage, e in wanted_of(policy, request)
    ]
