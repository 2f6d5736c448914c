"""Message headers by lower-case name."""

import re
from collections.abc import Mapping

from router.wire.problems import Problems

_KNOWN_NAMES = frozenset(
    (
        "tenant_id",
        "trace_id",
        "version",
        "idempotency-key",
        "idempotency_key",
        "x-client-ip",
        "traceparent",
        "content-type",
    )
)
# Version ff and ids of zeros are invalid (W3C Trace Context, section 3.2.2).
_traceparent = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{1,256})?"
).fullmatch
_garbled = re.compile("[\ud800-\udfff\ufffd]").search
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


def readable(headers: Mapping[str, str], dropped: Problems) -> Mapping[str, str]:
    """Return the headers without those that are not UTF-8."""
    garbled = [name for name, value in headers.items() if name in _KNOWN_NAMES and is_garbled(value)]
    if not garbled:
        return headers
    for name in garbled:
        dropped.add(f"header {name}", message="is not UTF-8")
    return {k: v for k, v in headers.items() if k not in garbled}


def is_garbled(value: str) -> bool:
    """Whether a header was not UTF-8: decoders leave U+FFFD or surrogates."""
    return not value.isascii() and _garbled(value) is not None


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """Return the W3C traceparent; an invalid one counts as absent (W3C Trace Context, section 3.2.2)."""
    value = headers.get("traceparent")
    return value if value is not None and _traceparent(value) else None
