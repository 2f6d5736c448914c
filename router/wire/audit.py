"""An audit entry as JSON: the same for people, exports and log lines."""

from datetime import UTC, datetime

import msgspec
import orjson

from router.domain.audit import AuditEntry
from router.domain.json import JsonObject


def moment(ts_us: int) -> str:
    """RFC 3339, in ms."""
    return datetime.fromtimestamp(ts_us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def audit_facts(entry: AuditEntry) -> JsonObject:
    """An entry as a JSON object, with its time in words too."""
    found: JsonObject = msgspec.to_builtins(entry)
    found["timestamp"] = moment(entry.ts_us)
    return found


def audit_line(entry: AuditEntry) -> bytes:
    """One line of an export, without its end."""
    return orjson.dumps(audit_facts(entry))
