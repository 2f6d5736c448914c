"""How a breaker is printed."""

from typing import TYPE_CHECKING, Any

from router.cli.shared.audit_rows import moment

if TYPE_CHECKING:
    from router.domain.levers import BreakerView


def breaker_facts(view: "BreakerView") -> dict[str, Any]:
    """The fields of a breaker in JSON."""
    return {
        "state": view.state.value,
        "forced": view.forced,
        "reason": view.why,
        "opened_at_ms": view.opened_at_ms or None,
        "next_probe_at_ms": view.next_probe_at_ms or None,
    }


def breaker_cells(view: "BreakerView | None") -> tuple[str, str | None, str]:
    """The cells of a breaker in a table: state, why, next probe."""
    if view is None:
        return "closed", None, ""
    return view.state.value, view.why, moment(view.next_probe_at_ms * 1000) if view.next_probe_at_ms else ""
