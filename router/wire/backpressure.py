"""The load of the fleet's intake, and the reply of `status.backpressure`."""

from enum import StrEnum

import orjson
from msgspec import Struct

from router.domain.json import JsonObject
from router.wire.subjects import DECIDE

_WARN_AT = 0.8


class Pressure(StrEnum):
    """The load level of the fleet's intake."""

    ACTIVE = "active"
    WARNING = "warning"
    INACTIVE = "inactive"
    UNKNOWN = "unknown"


class Thresholds(Struct, frozen=True):
    """The load from which callers should slow down."""

    queue_overload: int = 1000
    latency_overload_ms: int = 5000
    inflight_overload: int = 500


_DEFAULT = Thresholds()


class Load(Struct, frozen=True):
    """The measured load; None: no measurement. `shed`: requests were refused as overloaded a moment ago."""

    pending_messages: int | None
    latency_p95_ms: float | None
    inflight_messages: int | None
    shed: bool = False


def pressure(load: Load, thresholds: Thresholds = _DEFAULT) -> Pressure:
    """Return active at a threshold or after a refusal, warning from 80 % of one; else inactive.

    Without all three values the level is unknown, unless the known ones already mean active or warning.
    """
    if load.shed:
        return Pressure.ACTIVE
    shares = [
        None if measured is None else measured / threshold
        for measured, threshold in (
            (load.pending_messages, thresholds.queue_overload),
            (load.latency_p95_ms, thresholds.latency_overload_ms),
            (load.inflight_messages, thresholds.inflight_overload),
        )
    ]
    worst = max((s for s in shares if s is not None), default=0.0)
    if worst >= 1:
        return Pressure.ACTIVE
    if worst >= _WARN_AT:
        return Pressure.WARNING
    return Pressure.UNKNOWN if None in shares else Pressure.INACTIVE


def encode_backpressure(
    load: Load,
    thresholds: Thresholds = _DEFAULT,
    *,
    retry_after_s: int,
    max_retry_attempts: int,
    timestamp_ms: int,
) -> bytes:
    """Encode the reply of `status.backpressure`."""
    data: JsonObject = {
        "subject": DECIDE,
        "status": pressure(load, thresholds).value,
        "metrics": {
            "pending_messages": load.pending_messages,
            "latency_p95_ms": load.latency_p95_ms,
            "inflight_messages": load.inflight_messages,
        },
        "thresholds": {
            "queue_overload": thresholds.queue_overload,
            "latency_overload_ms": thresholds.latency_overload_ms,
            "inflight_overload": thresholds.inflight_overload,
        },
        "policy": {"retry_after_seconds": retry_after_s, "max_retry_attempts": max_retry_attempts},
        "timestamp": timestamp_ms,
    }
    return orjson.dumps({"success": True, "data": data})
