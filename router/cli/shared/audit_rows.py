"""Audit entries for people and for machines, and how people write a moment in time."""

import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from router.domain.audit.records import AuditEntry

_AGO = re.compile(r"(\d+)(s|m|h|d)")
_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LEFT_OUT = {"request_id", "decision_id", "policy_hash"}

COLUMNS = ("time", "action", "request", "what")

SinceOption = Annotated[str | None, typer.Option(help="Since a time (2026-01-31T12:00Z) or an age (15m, 2h).")]
UntilOption = Annotated[str | None, typer.Option(help="Before a time or an age.")]


def facts(entry: "AuditEntry") -> dict[str, Any]:
    """An entry for machines."""
    from router.wire.audit import audit_facts

    return audit_facts(entry)


def row(entry: "AuditEntry") -> tuple[object, ...]:
    """Time, action, request, and the details as text; fields that only machines need are in --json."""
    shown: dict[str, Any] = {
        k: v for k, v in entry.details.items() if k not in _LEFT_OUT and not isinstance(v, dict | list)
    }
    if entry.resource_type != "request" and entry.resource_id is not None:
        shown = {entry.resource_type: entry.resource_id} | shown
    if entry.user_id is not None:
        shown["user"] = entry.user_id
    what = ", ".join(f"{k} {v}" for k, v in shown.items())
    return moment(entry.ts_us), entry.action, entry.details.get("request_id"), what


def print_line(entry: "AuditEntry", *, json: bool, tenant: bool = False) -> None:
    """Print one entry on one line and flush; `tenant`: with its tenant and outcome."""
    from router.wire.audit import audit_line

    cells = (*row(entry), f"tenant {entry.tenant_id}, {entry.outcome}") if tenant else row(entry)
    words = (str(cell) for cell in cells if cell is not None)
    text = audit_line(entry).decode() if json else "  ".join(words)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def moment(ts_us: int) -> str:
    """RFC 3339, in ms."""
    from router.wire.audit import rfc3339_us as text_of

    return text_of(ts_us)


def moment_ms(text: str | None, *, option: str) -> int | None:
    """Unix ms of a time (RFC 3339) or of an age, which counts back from this machine's clock.

    :raises typer.BadParameter: it is neither.
    """
    if text is None:
        return None
    age = _AGO.fullmatch(text)
    if age is not None:
        return int(time.time() * 1000) - int(age[1]) * _MS[age[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError as e:
        raise typer.BadParameter(
            f"{text!r} is neither a time such as 2026-01-31T12:00Z nor an age such as 15m", param_hint=option
        ) from e
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
