"""Message headers by lower-case name."""

import re
from collections.abc import Mapping

_KNOWN_NAMES = frozenset(
    ("tenant_id", "trace_id", "version", "idempotency-key", "x-client-ip", "traceparent", "content-type")
)
_traceparent = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,256})?").fullmatch
NO_HEADERS: Mapping[str, str] = {}


def with_lower_names(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the headers with lower-case names, without empty values.

    Gateways forward headers without a value as empty ones. When all names are known lower-case names, the usual case,
    the mapping itself is returned.
    """
    if not headers:
        return NO_HEADERS
    if "" in headers.values():
        headers = {k: v for k, v in headers.items() if v}
    return headers if _KNOWN_NAMES.issuperset(headers) else {k.lower(): v for k, v in headers.items()}


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """Return the W3C traceparent; an invalid one counts as absent (W3C Trace Context, section 3.2.2)."""
    value = headers.get("traceparent")
    return value if value is not None and _traceparent(value) else None
