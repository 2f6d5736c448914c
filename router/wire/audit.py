"""Audit entries as JSON: the same form for the CLI, exports and log lines."""

from datetime import UTC, datetime

import msgspec
import orjson

from router.domain.audit.records import AuditEntry
from router.domain.json import JsonObject


def rfc3339_us(ts_us: int) -> str:
    """Format Unix microseconds as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(ts_us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def audit_facts(entry: AuditEntry) -> JsonObject:
    """Convert an entry to a JSON object; `timestamp` repeats `ts_us` as RFC 3339."""
    fields: JsonObject = msgspec.to_builtins(entry)
    fields["timestamp"] = rfc3339_us(entry.ts_us)
    return fields


def audit_line(entry: AuditEntry) -> bytes:
    """Encode an entry as one line of an export, without the newline."""
    return orjson.dumps(audit_facts(entry))
