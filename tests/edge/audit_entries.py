"""Audit entries for the files of an export."""

from router.domain.audit.records import AuditEntry


def entries(first: int, count: int) -> list[AuditEntry]:
    """So many, a millisecond apart."""
    return [
        AuditEntry(f"{n}-0", n * 1000, "acme", "decision.made", "request", f"r{n}", None, None, None, {})
        for n in range(first, first + count)
    ]
