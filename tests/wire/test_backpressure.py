"""The load level, and the reply of the backpressure status."""

import orjson
import pytest

from router.wire.backpressure import Load, Pressure, Thresholds, encode_backpressure, pressure


def test_backpressure_is_written_as_the_contract_says() -> None:
    """The golden reply."""
    load = Load(10, 12.5, 3)
    assert orjson.loads(encode_backpressure(load, retry_after_s=1, max_retry_attempts=3, timestamp_ms=5)) == {
        "success": True,
        "data": {
            "subject": "beamline.router.v1.decide",
            "status": "inactive",
            "metrics": {"pending_messages": 10, "latency_p95_ms": 12.5, "inflight_messages": 3},
            "thresholds": {"queue_overload": 1000, "latency_overload_ms": 5000, "inflight_overload": 500},
            "policy": {"retry_after_seconds": 1, "max_retry_attempts": 3},
            "timestamp": 5,
        },
    }


@pytest.mark.parametrize(
    ("load", "level"),
    [
        (Load(0, 0, 0), Pressure.INACTIVE),
        (Load(799, 3999, 399), Pressure.INACTIVE),
        (Load(800, 0, 0), Pressure.WARNING),
        (Load(0, 4000, 0), Pressure.WARNING),
        (Load(0, 0, 400), Pressure.WARNING),
        (Load(1000, 0, 0), Pressure.ACTIVE),
        (Load(0, 5000, 0), Pressure.ACTIVE),
        (Load(0, 0, 500), Pressure.ACTIVE),
        (Load(None, 0, 0), Pressure.UNKNOWN),
        (Load(None, None, 500), Pressure.ACTIVE),
        (Load(None, None, None), Pressure.UNKNOWN),
    ],
)
def test_pressure_is_that_of_the_worst_measure(load: Load, level: Pressure) -> None:
    """Active at a threshold, warning from 80 % on, and calm only when all three are known."""
    assert pressure(load) is level


@pytest.mark.parametrize(
    ("load", "level"),
    [
        (Load(0, 0, 0, shed=True), Pressure.ACTIVE),
        (Load(None, None, None, shed=True), Pressure.ACTIVE),
        (Load(0, 0, 9), Pressure.ACTIVE),
        (Load(0, 0, 8), Pressure.WARNING),
        (Load(0, 0, 7), Pressure.INACTIVE),
    ],
)
def test_the_thresholds_are_those_in_use(load: Load, level: Pressure) -> None:
    """Of a pod with a bound of ten; a refusal for overload says more than any measure."""
    thresholds = Thresholds(inflight_overload=9)
    assert pressure(load, thresholds) is level
    reply = encode_backpressure(load, thresholds, retry_after_s=1, max_retry_attempts=3, timestamp_ms=5)
    data = orjson.loads(reply)["data"]
    assert (data["status"], data["thresholds"]["inflight_overload"]) == (level.value, 9)
