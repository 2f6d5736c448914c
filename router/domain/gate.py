"""The CP gate: parses the mounted state file, and maps it to the features that it allows.

Only `current_cp` and `updated_at` are read. Checkpoints are ordered by their number. From CP2-LC on, all features are
allowed. With an older checkpoint, or without a usable file, the pod runs as the CP1 baseline.
"""

import re
from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

from router.domain.json import UNREADABLE


class Features(Struct, frozen=True):
    """The features that the CP gate allows. A decision names those that were withheld (`metadata.requires_cp`)."""

    pins: bool = True
    retries: bool = True
    best_score: bool = True
    explain: bool = True
    extensions: bool = True
    multi_tenant: bool = True


ALL_FEATURES = Features()
MAX_STATE_BYTES = 1 << 20
FIRST_FULL = 2
BASELINE = Features(pins=False, retries=False, best_score=False, explain=False, extensions=False, multi_tenant=False)
REQUIRED_CP = "CP2-LC"
KEPT = (
    "weighted routing, limits, idempotency, breakers",
    "dispatch with results and usage",
    "audit in Redis, alerts, health, basic metrics",
)
"""What the CP1 baseline has, for operators."""
GATED = {
    "multi_tenant": "tenants other than ROUTER_BASELINE_TENANT",
    "pins": "sticky sessions",
    "retries": "second and further attempts of a task",
    "best_score": "selection by learned latency and cost",
    "explain": "explanations in replies",
    "extensions": "pre, validators and post of policies",
    "audit_export": "audit export to streams and files",
    "audit_lines": "audit records as log lines",
    "tracing": "spans",
    "tenant_metrics": "tenant labels of metrics",
}
"""The features that need an open gate: name → description for operators."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHECKPOINT = re.compile(r"CP([0-9]{1,6})-([A-Z]{1,32})")


class Fault(StrEnum):
    """Why the gate is closed."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    MALFORMED = "malformed"
    OLDER = "older"


class Checkpoint(Struct, frozen=True):
    """The content of a usable state file. `updated_at_ms`: Unix time; None: the file has no time with a zone."""

    name: str
    number: int
    updated_at_ms: int | None = None


class Unusable(Struct, frozen=True):
    """An unusable state file: the reason as a word, and in detail."""

    fault: Fault
    detail: str


class _StateFile(Struct):
    current_cp: str
    updated_at: object = None


def parse(content: bytes) -> Checkpoint | Unusable:
    """Parse a state file."""
    if len(content) > MAX_STATE_BYTES:
        return Unusable(Fault.MALFORMED, f"larger than {MAX_STATE_BYTES} bytes")
    try:
        state = msgspec.json.decode(content.removeprefix(_BYTE_ORDER_MARK), type=_StateFile)
    except UNREADABLE as e:
        return Unusable(Fault.MALFORMED, str(e) or "empty")
    match = _CHECKPOINT.fullmatch(state.current_cp)
    if match is None:
        return Unusable(Fault.MALFORMED, f"current_cp {state.current_cp[:64]!r} is not a checkpoint such as CP2-LC")
    return Checkpoint(state.current_cp, int(match[1]), _unix_ms(state.updated_at))


def fault_of(state: Checkpoint | Unusable) -> Fault | None:
    """Why this state closes the gate; None: it opens the gate."""
    if isinstance(state, Unusable):
        return state.fault
    return None if state.number >= FIRST_FULL else Fault.OLDER


def features_of(state: Checkpoint | Unusable) -> Features:
    """The features that this state allows. With an open gate this is `ALL_FEATURES` itself, so `is` can compare it."""
    return ALL_FEATURES if fault_of(state) is None else BASELINE


def _unix_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return round(moment.timestamp() * 1000) if moment.tzinfo is not None else None
