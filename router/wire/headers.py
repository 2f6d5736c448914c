"""Message headers, found by lower-case name."""

import re
from collections.abc import Mapping

_READ = frozenset(("tenant_id", "trace_id", "version", "idempotency-key", "x-client-ip", "traceparent", "content-type"))
_traceparent = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,256})?").fullmatch
NO_HEADERS: Mapping[str, str] = {}


def lowered(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    """The headers under lower-case names; usually they have them already, and then it is the same mapping.

    Empty ones are left out: gateways forward those that they were not given, too.
    """
    if not headers:
        return NO_HEADERS
    if "" in headers.values():
        headers = {k: v for k, v in headers.items() if v}
    return headers if _READ.issuperset(headers) else {k.lower(): v for k, v in headers.items()}


def traceparent_of(head: Mapping[str, str]) -> str | None:
    """The W3C trace context; an invalid one is as good as none (Trace Context, 3.2.2)."""
    value = head.get("traceparent")
    return value if value is not None and _traceparent(value) else None
